"""What labelling pixels takes beyond the mathematics: masks beside features, graphs of their classes, and a bench.

Several stages share it, and it reads artifacts; the decoders themselves are in `heads`.
"""
