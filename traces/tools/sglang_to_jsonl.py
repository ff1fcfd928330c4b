#!/usr/bin/env python3
"""Turn dumps of SGLang's expert-distribution recorder (mode per_token) into JSON lines that hotset reads.

    python3 sglang_to_jsonl.py expert_distribution_recorder_*.pt -o trace.jsonl

A dump is a torch pickle, so this needs torch; it is loaded without running any code in it. The recorder keeps
physical expert ids: they are mapped to logical ones with the dump's last_physical_to_logical_map. It keeps no request
ids either. Tokens are put together by their positions: a token continues the first running request, in the order of the
batch, that it fits to; a request that a decode pass leaves out has ended. Requests that decoded nothing are left out.
"""

import argparse
import json
import os
import pickle
import sys
import tempfile

EXTEND, DECODE = 1, 2
# The recorder has this many places for the experts of a token, whatever the model.
RECORDER_PLACES = 8


class DumpError(Exception):
    """What is wrong with a dump."""


def load(path):
    """The dump in a file, as dicts, lists and tensors."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def plain(value):
    """A tensor as nested lists; lists as they are."""
    return value.tolist() if hasattr(value, "tolist") else value


class Request:
    """The tokens of one request: a list of selections for each token."""

    def __init__(self, position):
        self.next = position
        self.prompt = []
        self.decoded = []

    def add(self, token, decoded):
        (self.decoded if decoded else self.prompt).append(token)
        self.next += 1


def logical(record, mapping):
    """For each token of a pass, the logical experts at each layer; an empty list at layers without experts."""
    layers = plain(record["topk_ids_of_layer"])
    if len(layers) != len(mapping):
        raise DumpError(f"{len(layers)} layers in a pass, {len(mapping)} in last_physical_to_logical_map")
    tokens = [[] for _ in layers[0]]
    for layer, rows in enumerate(layers):
        if len(rows) != len(tokens):
            raise DumpError(f"{len(rows)} tokens at layer {layer}, {len(tokens)} at layer 0")
        for token, physical in zip(tokens, rows):
            chosen = [expert for expert in physical if expert >= 0]
            if any(expert >= len(mapping[layer]) for expert in chosen):
                raise DumpError(f"physical expert {max(chosen)} at layer {layer} is not in the map")
            token.append([mapping[layer][expert] for expert in chosen])
    return tokens


def requests(dump):
    """The requests of a dump, in the order in which they began."""
    if "logical_count" in dump:
        raise DumpError("a dump of counts: no token is in it; record with mode per_token")
    mapping = plain(dump["last_physical_to_logical_map"])
    begun, running = [], []
    for record in sorted(dump["records"], key=lambda record: record["forward_pass_id"]):
        if "topk_ids_of_layer" not in record:
            raise DumpError("a pass without topk_ids_of_layer: record with mode per_token")
        tokens, positions = logical(record, mapping), plain(record["positions"])
        if len(positions) < len(tokens):
            raise DumpError(f"{len(tokens)} tokens with {len(positions)} positions")
        mode = int(record["forward_mode"])
        if mode == EXTEND:
            lengths = plain(record["extend_seq_lens"])
            if sum(lengths) > len(tokens):
                raise DumpError(f"extend_seq_lens sum to {sum(lengths)}, but there are {len(tokens)} tokens")
        elif mode == DECODE:
            lengths = [1] * len(tokens)
        else:
            raise DumpError(f"forward_mode {mode}: only 1 (extend) and 2 (decode) can be told apart by request")
        taken, first = [], 0
        for length in lengths:
            request = continued(running, taken, positions[first] if length else None, mode)
            if request is None:
                request = Request(positions[first] if length else 0)
                begun.append(request)
            taken.append(request)
            for token in tokens[first : first + length]:
                request.add(token, mode == DECODE)
            first += length
        ended = [] if mode == EXTEND else [other for other in running if other.decoded and other not in taken]
        running = [other for other in running if other not in ended]
        running += [request for request in taken if request not in running]
    return begun


def continued(running, taken, position, mode):
    """The first running request that a token at this position continues."""
    for request in running:
        if request not in taken and request.next == position and not (mode == EXTEND and request.decoded):
            return request
    return None


def lines(dumps):
    """The records to write, and notes for the reader. `dumps` are (name, dump)."""
    kept, notes, experts = [], [], 0
    for name, dump in dumps:
        all_of_it = requests(dump)
        some = [request for request in all_of_it if request.decoded]
        if len(some) < len(all_of_it):
            notes.append(f"{name}: {len(all_of_it) - len(some)} requests decoded nothing and are left out")
        kept += [(f"{name}/{index}", request) for index, request in enumerate(some)]
        experts = max([experts] + [expert + 1 for row in plain(dump["last_physical_to_logical_map"]) for expert in row])
    tokens = [token for _, request in kept for token in request.prompt + request.decoded]
    if not tokens:
        raise DumpError("no token was decoded")
    routed = [layer for layer in range(len(tokens[0])) if any(token[layer] for token in tokens)]
    if any(len(token[layer]) >= RECORDER_PLACES for token in tokens for layer in routed):
        notes.append(f"the recorder keeps {RECORDER_PLACES} experts a token: is the model's top-k larger?")
    records = []
    for name, request in kept:
        about = {"prompt_rows": len(request.prompt), "num_experts": experts}
        for index, token in enumerate(request.prompt + request.decoded):
            for number, layer in enumerate(routed):
                record = {"layer_idx": number, "token_idx": index, "selected_ids": token[layer], "request_id": name}
                records.append({**record, **about})
                about = {}
    return records, notes


def write(path, records):
    """Writes the whole file, or none."""
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".hotset-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as out:
            for record in records:
                out.write(json.dumps(record) + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dumps", nargs="+", metavar="DUMP.pt")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.jsonl")
    arguments = parser.parse_args()
    try:
        stem = lambda path: os.path.splitext(os.path.basename(path))[0]
        records, notes = lines((stem(path), load(path)) for path in arguments.dumps)
    except (DumpError, KeyError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        missing = f"{error} is missing in the dump" if isinstance(error, KeyError) else error
        print(f"error: {missing}", file=sys.stderr)
        return 2
    write(arguments.output, records)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
