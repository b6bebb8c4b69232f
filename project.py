"""Find the latents of real images: the same command as `stylegan project`."""

from stylegan.cli.project import main

if __name__ == "__main__":
    main()
