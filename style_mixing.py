"""Mix the styles of images: the same command as `stylegan mix`.

`python style_mixing.py --help` explains the options.
"""

from stylegan.cli.mix import main

if __name__ == "__main__":
    main()
