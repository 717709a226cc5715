-- Benchmarks: ratios measured on the user's own machine, and how time grows with the number of slices.

CREATE TABLE benchmark_runs (
    bench_id VARCHAR PRIMARY KEY,
    machine  VARCHAR NOT NULL,
    quick    BOOLEAN NOT NULL
);
COMMENT ON TABLE benchmark_runs IS 'One row per bench command.';
COMMENT ON COLUMN benchmark_runs.bench_id IS 'Record of the benchmarks.';
COMMENT ON COLUMN benchmark_runs.machine IS 'Processor, cores and GPU.';
COMMENT ON COLUMN benchmark_runs.quick IS 'Whether --quick was given: smaller sizes, fewer rounds.';

CREATE TABLE benchmarks (
    bench_id VARCHAR NOT NULL,
    name     VARCHAR NOT NULL,
    question VARCHAR NOT NULL,
    ratio    DOUBLE NOT NULL,
    low      DOUBLE NOT NULL,
    high     DOUBLE NOT NULL,
    unit     VARCHAR NOT NULL,
    target   VARCHAR,
    verdict  VARCHAR NOT NULL,
    device   VARCHAR NOT NULL,
    note     VARCHAR,
    times    STRUCT(what VARCHAR, seconds DOUBLE[])[],
    PRIMARY KEY (bench_id, name)
);
COMMENT ON TABLE benchmarks IS 'One row per ratio of a bench command.';
COMMENT ON COLUMN benchmarks.bench_id IS 'Record of the benchmarks.';
COMMENT ON COLUMN benchmarks.name IS 'Short name of the benchmark.';
COMMENT ON COLUMN benchmarks.question IS 'What is divided by what.';
COMMENT ON COLUMN benchmarks.ratio IS 'Median over the rounds.';
COMMENT ON COLUMN benchmarks.low IS 'Lowest of a round.';
COMMENT ON COLUMN benchmarks.high IS 'Highest of a round.';
COMMENT ON COLUMN benchmarks.unit IS 'ratio, s or records/s.';
COMMENT ON COLUMN benchmarks.target IS 'What it must reach; NULL for what only informs.';
COMMENT ON COLUMN benchmarks.verdict IS 'pass, fail or n/a.';
COMMENT ON COLUMN benchmarks.device IS 'cpu or cuda.';
COMMENT ON COLUMN benchmarks.note IS 'Why the verdict is not what the ratio alone would say.';
COMMENT ON COLUMN benchmarks.times IS 'Raw seconds of each round, by what was timed.';

CREATE TABLE benchmark_growth (
    bench_id VARCHAR NOT NULL,
    stage    VARCHAR NOT NULL,
    n_slices BIGINT NOT NULL,
    seconds  DOUBLE NOT NULL,
    PRIMARY KEY (bench_id, stage, n_slices)
);
COMMENT ON TABLE benchmark_growth IS 'Time of each stage against the number of slices.';
COMMENT ON COLUMN benchmark_growth.bench_id IS 'Record of the benchmarks.';
COMMENT ON COLUMN benchmark_growth.stage IS 'What was timed.';
COMMENT ON COLUMN benchmark_growth.n_slices IS 'Slices worked on.';
COMMENT ON COLUMN benchmark_growth.seconds IS 'Wall-clock time.';
