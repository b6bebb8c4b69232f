"""Find directions in latent space and move along them: the same command as `stylegan directions`.

`python directions.py --help` explains the options.
"""

from stylegan.cli.directions import main

if __name__ == "__main__":
    main()
