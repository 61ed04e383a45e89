"""What machine is this, really: a reader's map. Import from the file that says it; nothing is gathered here.

    cores     cores(), slots()                          what this process may use, by the least of all limits
    memory    memory(), budget_bytes(), private_bytes() what there is, what is free, what a process holds
    strain    throttling(), pressure(), stolen_share()  what holds it up from outside
    threads   one_thread(), one_thread_environment(), blas()
    scratch   scratch(), filesystem()                   where large files may go
    speed     single_core_reference(), disk_speed()     short measurements
    ceilings  ceilings(), absences()                    ulimits; what this platform does not have
    extras    extras()                                  what is installed and what is missing
    doctor    doctor()                                  all of it, with settings to paste
    cgroups   groups()                                  the control groups above this process

Does not know runs, engines or settings; it imports nothing of millrace but `run`.
"""
