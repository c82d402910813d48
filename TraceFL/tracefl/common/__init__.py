"""What every part uses: seeds, text files, this machine, signals. Needs no part of TraceFL but its errors."""
