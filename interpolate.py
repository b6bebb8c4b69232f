"""Make films and image sequences from image to image: the same command as `stylegan film`.

`python interpolate.py --help` explains the options.
"""

from stylegan.cli.film import main

if __name__ == "__main__":
    main()
