"""Measure a network: the same command as `stylegan metrics`.

`python calc_metrics.py --help` explains the options.
"""

from stylegan.cli.metrics import main

if __name__ == "__main__":
    main()
