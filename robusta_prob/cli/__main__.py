"""`python -m robusta_prob.cli` is `robusta-prob`."""

import sys

from robusta_prob.cli import main

if __name__ == "__main__":
    sys.exit(main())
