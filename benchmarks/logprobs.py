"""Peak memory and time of log-probabilities with their gradient: whole logits against blocks of the vocabulary.

    python benchmarks/logprobs.py [--tokens 8192] [--vocabulary 151936] [--hidden 1536] [--precision bf16]

Each way runs in a process of its own and prints one JSON line: what its memory rose to beyond its inputs, and seconds;
the last line has their ratio and how far log-probabilities and gradients are from each other. The plain way is logits
in the model's precision, their fp32 copy, log_softmax and autograd.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_rl.actor.vocabulary import Head, log_probabilities
from megatron_rl.device.cpu import cpu

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
TEMPERATURE = 1.2


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """[T, V] logits, whole, as Megatron's output layer gives them."""
    logits = (hidden @ weight.t()).float() / TEMPERATURE
    return logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)


def fused(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The actor's."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    head = Head(hidden=hidden, weight=weight, product=cpu(weight.dtype).product_in_fp32, rounds_logits=True)
    return log_probabilities(head, targets, TEMPERATURE, dist.group.WORLD)


def measured(way: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Bytes and seconds of one forward and backward pass in this process; the results go to `folder`."""
    torch.manual_seed(0)
    precision = PRECISIONS[arguments.precision]
    hidden = torch.randn(arguments.tokens, arguments.hidden, dtype=precision).requires_grad_()
    weight = (torch.randn(arguments.vocabulary, arguments.hidden, dtype=precision) / arguments.hidden**0.5).detach()
    weight.requires_grad_()
    targets = torch.randint(arguments.vocabulary, (arguments.tokens,))
    upstream = torch.randn(arguments.tokens)
    before, start = peak_bytes(), time.perf_counter()
    logprobs = {"plain": plain, "fused": fused}[way](hidden, weight, targets)
    gradients = torch.autograd.grad((logprobs * upstream).sum(), [hidden, weight])
    seconds = time.perf_counter() - start
    rise = peak_bytes() - before
    torch.save([logprobs.detach(), *gradients], folder / f"{way}.pt")
    return {"way": way, "peak_bytes": rise, "seconds": round(seconds, 2)}


def peak_bytes() -> int:
    """The most memory that this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Prints three JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in {"tokens": 8192, "vocabulary": 151936, "hidden": 1536}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--way", choices=("plain", "fused"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measured(arguments.way, arguments, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for way in ("plain", "fused"):
            command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--way", way, "--folder", folder]
            line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            found[way] = json.loads(line)
            print(line, flush=True)
        whole, blocks = (torch.load(Path(folder) / f"{way}.pt") for way in ("plain", "fused"))
        gaps = [float((a.float() - b.float()).abs().max()) for a, b in zip(whole, blocks, strict=True)]
    line = {"memory_ratio": round(found["fused"]["peak_bytes"] / found["plain"]["peak_bytes"], 3)}
    names = ("logprobs", "gradient_hidden", "gradient_weight")
    print(json.dumps(line | {f"gap_{name}": gap for name, gap in zip(names, gaps, strict=True)}))


if __name__ == "__main__":
    main()
