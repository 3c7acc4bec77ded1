import sys

from umm_bench.mini.cards.writer import main

sys.exit(main())
