"""Manifest stores of C2PA: what the library makes and reads, and how one is made from another.

The library takes milliseconds for each file, most of them for what all files of a job share. So it
makes and checks one manifest store, and `template` makes the others from it: only what differs is
put in, hashed and signed anew. Whatever is not as expected goes to the library instead. Must not
know what is stated, nor whose keys there are.
"""
