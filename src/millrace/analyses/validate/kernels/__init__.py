"""What is computed: canonical forms of programs, the jail, the zygote that forks jailed children, the judge of one case."""
