"""`python -m causalvae_fast` is `causalvae-fast`."""

import sys

from causalvae_fast.cli import main

sys.exit(main())
