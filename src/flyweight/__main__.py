"""`python -m flyweight` is `flyweight`."""

from __future__ import annotations

from flyweight.cli import main

if __name__ == "__main__":
    main()
