"""`python -m mmalign`, e.g. under `accelerate launch -m mmalign train CONFIG`."""

from mmalign.cli import main

if __name__ == "__main__":
    main()
