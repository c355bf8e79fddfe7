"""Training: trainer.py is the loop over epochs and steps, step.py one step of it.

Before them come batch, state, loss, schedule and seed; beside them statistics, nonfinite and
validation; checkpoint.py keeps a run's files, weight_file.py reads and writes one.
"""
