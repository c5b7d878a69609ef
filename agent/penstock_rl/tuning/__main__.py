"""Tune the parameters of the Bayes filter: `python -m penstock_rl.tuning --checkpoint FILE`.

Prints a line per generation and, at the end, the parameters at the center of the distribution.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from penstock_agent.policies import bayes
from penstock_agent.policies.tunable import from_vector, to_vector

from penstock_rl.tuning.objective import Comparison
from penstock_rl.tuning.search import Plan, Search, TuningError


def main() -> None:
    """Run a search, or go on with one."""
    asked = _arguments()
    start = tuple(float(value) for value in to_vector(bayes.DEFAULT))
    try:
        plan = Plan(start, asked.seed, asked.population, asked.generations)
        objective = Comparison(asked.seed * 100_000, asked.scenarios, asked.threads, asked.level)
        search = Search(plan, objective, asked.checkpoint)
    except TuningError as error:
        raise SystemExit(f"error: {error}") from None
    for each in search.run():
        print(f"{each.number:4d}  best {each.best:+.4f}  mean {each.mean:+.4f}  spread {each.spread:.3f}", flush=True)
    for name, value in asdict(from_vector(bayes.Parameters, search.center)).items():
        print(f"{name} = {value:.4g}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m penstock_rl.tuning", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="file that a search goes on from, if it is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--scenarios", type=int, default=16, help="per generation")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--level", choices=("basic", "full"), default="full", help="of features")
    return parser.parse_args()


if __name__ == "__main__":
    main()
