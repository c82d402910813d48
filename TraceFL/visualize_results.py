"""The paper's figures and tables from one's own runs; see ``tracefl.visualize``."""

from tracefl.visualize import main

if __name__ == "__main__":
    main()
