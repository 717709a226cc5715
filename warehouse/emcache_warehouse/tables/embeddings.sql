INSERT INTO embeddings
SELECT
    parse_path(file.filename)[-2],
    file.dataset,
    file.slice_id,
    file.level,
    file.class,
    file.token_row,
    file.token_col,
    file.vector::FLOAT[]
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file;
