"""What an index of a million vectors costs to search, to hold, to open, to add to and to rebuild.

Run by ``make bench-scale``; a smaller ``--rows`` takes less time. Vectors are made up, around
centres, since photos would take days; texts are encoded by a stand-in that looks vectors up.
"""
