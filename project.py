"""Find the latents of real images: the same command as `stylegan project`.

`python project.py --help` explains the options.
"""

from stylegan.cli.project import main

if __name__ == "__main__":
    main()
