"Speed, memory and accuracy beside the library that this one succeeds: `python -m benchmarks --help`"
