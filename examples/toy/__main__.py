"""`python -m examples.toy OUTPUT`: simulate the toy survey, run everything, draw everything."""

import argparse
from pathlib import Path

from examples.toy import figures, run, simulate

parser = argparse.ArgumentParser("python -m examples.toy", description=__doc__)
parser.add_argument("output", nargs="?", default="toy_run", type=Path, help="folder to write to")
parser.add_argument("--objects", type=int, default=8000)
parser.add_argument("--pixels", type=int, default=1200)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
size = options.objects, options.pixels, options.seed
simulate.main(options.output, *size)
run.main(options.output, *size)
figures.main(options.output)
print(f"pictures and results.json are in {options.output}")
