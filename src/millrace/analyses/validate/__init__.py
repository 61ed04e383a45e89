"""validate: which of thousands of untrusted candidate programs pass, without one of them hanging, crashing or deceiving the
rest.

See `spec` for the question, `analysis` for the order of work, `kernels/jail` and `kernels/zygote` for the isolation,
`kernels/canonical` for when two programs are the same.
"""
