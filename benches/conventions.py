"""AISimulate's figures for tests/conventions.rs, which holds hotset's definitions and scheduling to them: writes tests/golden/aisimulate.csv.

usage: python3 benches/conventions.py [--aisimulate FILE]

Needs AISimulate (pip install --only-binary :all: aisimulate==0.13.0.dev202610270000000085) and HOTSET_DATA, the folder with Azure's trace
(github.com/Azure/AzurePublicDataset). Every step that computes prompts takes 30 ms and every step that decodes 20 ms, both together 50 ms, so
that what differs is who runs when and what is called TTFT, TPOT and ITL. Steps of at most 2,048 tokens and 32 requests, caches in pages of 16
tokens, no prefixes.
"""

import argparse
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
AZURE = "request_traces/AzureLLMInferenceTrace_conv_2023.csv"
REQUESTS = 1000
# Traces that are Azure's with each request moved by less than a step, in nanoseconds.
MOVED = 16
STEP = 20_000_000

# A name, the traffic, and the pages of the cache.
CLOSED = """
  source: {{type: synthetic, input_tokens: 300, output_tokens: 100}}
  load: {{type: concurrency, concurrency: 24}}
  stop: {{requests: 240}}"""
RECORDED = """
  source: {{type: trace, paths: [{trace}], format: mooncake}}
  load: {{type: trace_timestamps}}"""
STEADY = """
  source: {{type: synthetic, input_tokens: 300, output_tokens: 100}}
  load: {{type: constant_rate, requests_per_second: 9.3}}
  stop: {{requests: 240}}"""
CASES = [("steady", STEADY, 1_000_000), ("closed", CLOSED, 1_000_000), ("azure", RECORDED, 1_000_000), ("azure_2000_pages", RECORDED, 2000),
         ("azure_1500_pages", RECORDED, 1500)]

CONFIG = """
traffic: {traffic}
engine:
  mode: aggregated
  model: meta-llama/Meta-Llama-3.1-8B
  hardware: h100_sxm
  backend: vllm
  workers:
    aggregated:
      scheduler: {{max_batched_tokens: 2048, max_sequences: 32}}
      kv_cache: {{block_size: 16, prefix_caching: false, capacity: {{type: fixed, blocks: {pages}}}}}
      timing: {{type: fixed, prefill_ms: 30, decode_ms: 20}}
"""

FIGURES = {f"{ours}_{of}_ms": f"{theirs}_{of}_ms" for of in ["ttft", "tpot", "itl"]
           for ours, theirs in [("mean", "mean"), ("p50", "median"), ("p90", "p90"), ("p95", "p95"), ("p99", "p99")]}
FIGURES |= {name: name for name in ["output_throughput_tok_s", "request_throughput_rps"]}


def nanoseconds(timestamp):
    whole, fraction = timestamp.split(".")
    return int(datetime.datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def mooncake(recorded, path, which=None):
    """The first requests of Azure's trace in the format that AISimulate reads, each moved by less than a step if `which` is given. No two
    prompts have a block in common."""
    with open(recorded) as file:
        rows = list(csv.DictReader(file))[:REQUESTS]
    times = [nanoseconds(row["TIMESTAMP"]) for row in rows]
    times = [at - times[0] for at in times]
    if which is not None:
        times = sorted(at + (number + 1) * (which + 1) * 7_919_000 % STEP for number, at in enumerate(times))
    with open(path, "w") as file:
        for number, (row, at) in enumerate(zip(rows, times)):
            prompt = int(row["ContextTokens"])
            blocks = [number * 1000 + block for block in range(-(-prompt // 512))]
            at /= 1e6
            request = {"timestamp": at, "input_length": prompt, "output_length": int(row["GeneratedTokens"]), "hash_ids": blocks}
            file.write(json.dumps(request) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aisimulate", default=shutil.which("aisimulate"))
    arguments = parser.parse_args()
    if not arguments.aisimulate or "HOTSET_DATA" not in os.environ:
        sys.exit(__doc__)
    rows = [["case", "figure", "value"]]
    with tempfile.TemporaryDirectory() as folder:
        trace, config, out = (os.path.join(folder, name) for name in ["azure.jsonl", "config.yaml", "out"])
        recorded = os.path.join(os.environ["HOTSET_DATA"], AZURE)

        def predict(traffic, pages):
            with open(config, "w") as file:
                file.write(CONFIG.format(traffic=traffic.format(trace=trace), pages=pages))
            command = [arguments.aisimulate, "predict", "--config", config, "--output-dir", out, "--overwrite"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with open(os.path.join(out, "prediction.json")) as file:
                return json.load(file)

        mooncake(recorded, trace)
        for name, traffic, pages in CASES:
            report = predict(traffic, pages)
            rows += [[name, ours, f"{report[theirs]:.6g}"] for ours, theirs in FIGURES.items()]
        for pages in [2000, 1500]:
            tails = []
            for which in range(MOVED):
                mooncake(recorded, trace, which)
                tails.append(predict(RECORDED, pages)["p99_tpot_ms"])
            rows.append([f"moved_{pages}_pages", "mean_p99_tpot_ms", f"{sum(tails) / MOVED:.6g}"])
    with open(os.path.join(ROOT, "tests", "golden", "aisimulate.csv"), "w") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


main()
