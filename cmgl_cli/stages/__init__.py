"""One thin module a command: read artifacts, compute with pure functions, write one artifact.

Every module offers the same three functions, called by `cmgl_cli.pipeline`:

- ``prepare(job)`` looks at what is read beside artifacts and returns its digests;
- ``compute(job, state, inputs, out)`` does the work;
- ``summarize(artifact, job)`` says what came out.
"""
