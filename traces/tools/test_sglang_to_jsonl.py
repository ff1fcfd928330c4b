"""Tests of the exporter, on dumps made by hand; with torch, on a dump that torch wrote."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import sglang_to_jsonl as exporter  # noqa: E402

# Layer 0 is dense. Layer 1 has physical experts 0..5, where 4 and 5 are second copies of 1 and 3.
MAP = [[0, 1, 2, 3, 1, 3], [0, 1, 2, 3, 1, 3]]


def forward(number, mode, positions, experts, lengths=None):
    """A pass whose tokens select two physical experts at layer 1."""
    pad = [-1] * 8
    layer = [list(pair) + [-1] * 6 for pair in experts]
    record = {"forward_pass_id": number, "forward_mode": mode, "positions": positions}
    record["topk_ids_of_layer"] = [[pad for _ in experts], layer]
    return {**record, "extend_seq_lens": lengths}


def two_requests():
    """A prompt of two tokens decodes twice; another one, of one token, joins it for its second token."""
    records = [
        forward(1, 1, [0, 1], [(0, 4), (5, 2)], [2]),
        forward(2, 2, [2], [(1, 2)]),
        forward(3, 1, [0], [(3, 0)], [1]),
        # Out of order on purpose: passes are sorted by their number.
        forward(5, 2, [2], [(0, 5)]),
        forward(4, 2, [3, 1], [(4, 5), (2, 0)]),
    ]
    return {"records": records, "last_physical_to_logical_map": MAP}


def selections(records):
    found = {}
    for record in records:
        found.setdefault(record["request_id"], []).append(record["selected_ids"])
    return found


class Exporter(unittest.TestCase):
    def test_requests_are_told_apart_and_ids_are_logical(self):
        records, notes = exporter.lines([("rank0", two_requests())])
        self.assertEqual(notes, [])
        self.assertEqual(
            selections(records),
            {"rank0/0": [[0, 1], [3, 2], [1, 2], [1, 3]], "rank0/1": [[3, 0], [2, 0], [0, 3]]},
        )
        first = [record for record in records if "prompt_rows" in record]
        self.assertEqual([record["prompt_rows"] for record in first], [2, 1])
        self.assertEqual({record["num_experts"] for record in first}, {4})
        self.assertEqual({record["layer_idx"] for record in records}, {0})

    def test_a_prompt_in_chunks_is_one_prompt(self):
        passes = [
            forward(1, 1, [0, 1], [(0, 1), (1, 2)], [2]),
            forward(2, 1, [2, 0], [(2, 3), (3, 0)], [1, 1]),
            forward(3, 2, [3, 1], [(0, 2), (1, 3)]),
        ]
        records, _ = exporter.lines([("a", {"records": passes, "last_physical_to_logical_map": MAP})])
        self.assertEqual([record["prompt_rows"] for record in records if "prompt_rows" in record], [3, 1])

    def test_a_request_without_a_decoded_token_is_left_out_and_named(self):
        dump = two_requests()
        dump["records"].append(forward(6, 1, [0], [(0, 1)], [1]))
        records, notes = exporter.lines([("a", dump)])
        self.assertEqual(len(selections(records)), 2)
        self.assertIn("1 requests decoded nothing", notes[0])

    def test_what_cannot_be_read_is_refused(self):
        stat = {"logical_count": [[[1, 2]]], "rank": 0}
        out_of_map = {"records": [forward(1, 2, [0], [(0, 6)])], "last_physical_to_logical_map": MAP}
        verify = {"records": [forward(1, 5, [0], [(0, 1)])], "last_physical_to_logical_map": MAP}
        short = {"records": [forward(1, 2, [0], [(0, 1)])], "last_physical_to_logical_map": MAP[:1]}
        nothing = {"records": [], "last_physical_to_logical_map": MAP}
        for dump, text in [
            (stat, "counts"),
            (out_of_map, "physical expert 6 at layer 1"),
            (verify, "forward_mode 5"),
            (short, "2 layers in a pass, 1"),
            (nothing, "no token"),
        ]:
            with self.assertRaisesRegex(exporter.DumpError, text):
                exporter.lines([("a", dump)])

    def test_a_dump_that_torch_wrote(self):
        try:
            import torch
        except ImportError:
            self.skipTest("no torch here")
        dump = two_requests()
        dump["last_physical_to_logical_map"] = torch.tensor(MAP)
        for record in dump["records"]:
            for key in ["topk_ids_of_layer", "positions"]:
                record[key] = torch.tensor(record[key], dtype=torch.int32)
        with tempfile.TemporaryDirectory() as folder:
            path, out = os.path.join(folder, "rank0.pt"), os.path.join(folder, "trace.jsonl")
            torch.save(dump, path)
            command = [sys.executable, os.path.join(HERE, "sglang_to_jsonl.py"), path, "-o", out]
            subprocess.run(command, check=True)
            with open(out) as written:
                records = [json.loads(line) for line in written]
            self.assertEqual(records, exporter.lines([("rank0", two_requests())])[0])
            self.assertEqual(sorted(os.listdir(folder)), ["rank0.pt", "trace.jsonl"])


if __name__ == "__main__":
    # A folder given on the command line gets the lines of the test's dump, for who reads them next.
    if len(sys.argv) > 1:
        exporter.write(os.path.join(sys.argv[1], "sglang.jsonl"), exporter.lines([("rank0", two_requests())])[0])
    else:
        unittest.main()
