"""A network as plain C for microcontrollers: what an int8 file computes, bit for bit.

`writers` turn a file's operators into steps, `integer` proves their arithmetic, `plan` finds memory for them, `source`
writes them down, and `kbnn_nn.c` is the kernels, the same for every network.
"""
