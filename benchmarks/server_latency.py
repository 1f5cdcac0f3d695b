"""How long requests to `packlm server` take, with several clients at a time: `python benchmarks/server_latency.py http://127.0.0.1:8000`.

Every client sends one request after the other, each with another prompt, for `--max-tokens` tokens.
"""

import argparse
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def request(address: str, prompt: str, max_tokens: int) -> float:
    """The seconds that a request takes."""
    body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "seed": 1}).encode()
    started = time.perf_counter()
    call = urllib.request.Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=600) as response:
        response.read()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--requests", type=int, default=10, help="of each client")
    parser.add_argument("--max-tokens", type=int, default=20)
    options = parser.parse_args()
    request(options.address, "the", 1)
    print("clients  requests/s  p50 ms  p99 ms")
    for clients in map(int, options.clients.split(",")):

        def client(number: int) -> list[float]:
            return [request(options.address, f"the number {number} {index}", options.max_tokens) for index in range(options.requests)]

        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            seconds = np.concatenate(list(pool.map(client, range(clients))))
        rate = len(seconds) / (time.perf_counter() - started)
        print(f"{clients:7}  {rate:10.1f}  {np.percentile(seconds, 50) * 1000:6.0f}  {np.percentile(seconds, 99) * 1000:6.0f}")


if __name__ == "__main__":
    main()
