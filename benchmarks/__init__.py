"""Speed at the papers' size, measured on the reader's machine: `make bench`.

Protocol. Float32 unless said, the threads that the record names, made-up data and random weights (they cost what
trained ones cost). One untimed call comes first; then rounds in one process, whose median and quartiles count. Peak
memory is that of a process of its own. What two programs cost is compared within one run only.
"""
