"""Hit counts of libCacheSim (PyPI `libcachesim`) on an oracleGeneral trace, as CSV: rule,capacity_slots,hits.

usage: count_hits.py TRACE CAPACITY...
Exits with 3 where the package is not installed.
"""

import sys

try:
    import libcachesim as lcs
except ImportError:
    sys.exit(3)

# Our name of a rule, and the class that is the same rule with its default parameters.
RULES = {
    "fifo": lcs.FIFO,
    "lru": lcs.LRU,
    "moe_infinity_released": lcs.LFU,
    "arc": lcs.ARC,
    "s3_fifo": lcs.S3FIFO,
    "sieve": lcs.Sieve,
    "w_tiny_lfu": lcs.WTinyLFU,
    "gdsf": lcs.GDSF,
    "belady": lcs.Belady,
}


def hits(rule, trace, capacity):
    reader = lcs.TraceReader(trace, lcs.TraceType.ORACLE_GENERAL_TRACE, lcs.ReaderInitParam(ignore_obj_size=True))
    requests = reader.get_num_of_req()
    misses, _ = rule(capacity, hashpower=16).process_trace(reader)
    return round(requests * (1 - misses))


for name, rule in RULES.items():
    for capacity in sys.argv[2:]:
        print(f"{name},{capacity},{hits(rule, sys.argv[1], int(capacity))}")
