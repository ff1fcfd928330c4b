"""Hotset beside its peers on one core of this machine, by turns.

usage: python3 benches/peers.py replay [--accesses 20000000] [--repetitions 5] [--rules lru,sieve] [--trace FILE]
       python3 benches/peers.py serving [--repetitions 5] [--concurrency 1,64,256] [--scale 1.0]
       either [--hotset target/release/hotset]

replay: replay rates against libCacheSim (PyPI `libcachesim`). Builds one trace (Zipf 0.6 over 14,848 ids, as many as a
model of 58 layers with 256 experts has, replayed with slots for a quarter of them) as a 24-byte oracleGeneral file, and
runs both on it, each replay in a process of its own that is pinned to one core. The wheel holds no command: its loop is
called once a replay, `process_trace`, which reads the file and counts hits in C. Rates are millions of accesses a second,
the best of the repetitions; a machine that does other things too disturbs them less as both are taken from the processor
time of the process, but for `packed`.

  file      both read the file: hotset's whole process, from its start to its exit, against process_trace
  packed    hotset's replay alone, from ids in memory, against the same process_trace

The size of libCacheSim's hash table is given (2^16 buckets): its default of 2^24 is two to three times slower here.

serving: iterations a second against inference-lab (crates.io) and AISimulate (PyPI). See benches/serving_peers.py.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile

import serving_peers

IDS, SLOTS, SKEW, SEED = 14_848, 3_712, 0.6, 1

# Our rule, libCacheSim's class.
RULES = [
    ("sieve", "Sieve"),
    ("fifo", "FIFO"),
    ("lru", "LRU"),
    ("arc", "ARC"),
    ("moe_infinity_released", "LFU"),
    ("lfu", "LFU"),
    ("s3_fifo", "S3FIFO"),
    ("belady", "Belady"),
    ("w_tiny_lfu", "WTinyLFU"),
    ("gdsf", "GDSF"),
]

PEER = """
import sys, time, libcachesim as lcs
trace, rule, slots = sys.argv[1], sys.argv[2], int(sys.argv[3])
reader = lcs.TraceReader(trace, lcs.TraceType.ORACLE_GENERAL_TRACE, lcs.ReaderInitParam(ignore_obj_size=True))
requests = reader.get_num_of_req()
cache = getattr(lcs, rule)(slots, hashpower=16)
start = time.process_time()
misses, _ = cache.process_trace(reader)
print(time.process_time() - start, round(requests * (1 - misses)))
"""


def build(path, accesses):
    """Independent draws, the popular ids strewn among the others; each record knows its next access."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    share = np.cumsum(1 / np.arange(1, IDS + 1) ** SKEW)
    ids = rng.permutation(IDS)[np.searchsorted(share / share[-1], rng.random(accesses))]
    next_access = np.full(accesses, -1, np.int64)
    by_id = np.argsort(ids, kind="stable")
    again = ids[by_id[1:]] == ids[by_id[:-1]]
    next_access[by_id[:-1][again]] = by_id[1:][again]
    fields = [("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]
    records = np.zeros(accesses, np.dtype(fields))
    records["time"], records["id"], records["size"], records["next"] = np.arange(accesses), ids, 1, next_access
    records.tofile(path)


def hotset(binary, trace, rule):
    """Processor seconds of the whole process, accesses a second of the replay alone, hits."""
    command = [binary, "replay", trace, "--order", "access", "--slots", str(SLOTS), "--threads", "1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(command + ["--policies", rule, "--format", "json"], check=True, capture_output=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    run = json.loads(output)[0]
    return seconds, run["accesses_per_s"], run["hits"]


def libcachesim(trace, rule):
    """Processor seconds of process_trace, hits."""
    command = [sys.executable, "-c", PEER, trace, rule, str(SLOTS)]
    seconds, hits = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), int(hits)


def compare(arguments, trace):
    accesses = os.path.getsize(trace) // 24
    print(f"{accesses:,} accesses, {SLOTS:,} slots, best of {arguments.repetitions}; rates in millions a second")
    print(f"{'rule':<14}{'hits':>12}{'theirs':>12}{'packed':>9}{'file':>9}{'peer':>9}{'packed x':>10}{'file x':>8}")
    for ours, theirs in RULES:
        if arguments.rules and ours not in arguments.rules:
            continue
        runs = [(hotset(arguments.hotset, trace, ours), libcachesim(trace, theirs)) for _ in range(arguments.repetitions)]
        packed = max(run[1] for run, _ in runs) / 1e6
        file = accesses / min(run[0] for run, _ in runs) / 1e6
        peer = accesses / min(run[0] for _, run in runs) / 1e6
        hits, peer_hits = runs[0][0][2], runs[0][1][1]
        ratios = f"{packed / peer:>10.1f}{file / peer:>8.1f}"
        print(f"{ours:<14}{hits:>12}{peer_hits:>12}{packed:>9.1f}{file:>9.1f}{peer:>9.1f}{ratios}", flush=True)


def replay(arguments):
    try:
        import libcachesim as _
    except ImportError:
        sys.exit("libcachesim is not installed: pip install libcachesim==0.3.5")
    with tempfile.TemporaryDirectory() as folder:
        trace = arguments.trace or os.path.join(folder, "zipf.oracleGeneral")
        if not os.path.exists(trace):
            build(trace, arguments.accesses)
        compare(arguments, trace)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    rules = parts.add_parser("replay", help="rules against libCacheSim")
    rules.add_argument("--accesses", type=int, default=20_000_000)
    rules.add_argument("--rules", type=lambda names: names.split(","), help="some of the rules, by our names")
    rules.add_argument("--trace", help="an oracleGeneral file to use, or to build and keep")
    rules.set_defaults(run=replay)
    serving = parts.add_parser("serving", help="serving against inference-lab and AISimulate")
    serving_peers.add_arguments(serving)
    serving.set_defaults(run=serving_peers.compare)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target"))
    for part in [rules, serving]:
        part.add_argument("--repetitions", type=int, default=5)
        part.add_argument("--hotset", default=os.path.join(target, "release", "hotset"))
    arguments = parser.parse_args()
    if not os.path.exists(arguments.hotset):
        sys.exit(f"{arguments.hotset} does not exist: cargo build --release")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    arguments.run(arguments)


main()
