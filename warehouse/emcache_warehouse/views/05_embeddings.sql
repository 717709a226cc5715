-- Embeddings of one width as fixed-size arrays, which DuckDB's array functions take.
CREATE VIEW embeddings_384 AS
SELECT record_id, dataset, slice_id, level, class, token_row, token_col, vector::FLOAT[384] AS vector
FROM embeddings
WHERE len(vector) = 384;
COMMENT ON VIEW embeddings_384 IS 'Embeddings of 384 numbers, as arrays of that fixed size.';
CREATE VIEW embeddings_768 AS
SELECT record_id, dataset, slice_id, level, class, token_row, token_col, vector::FLOAT[768] AS vector
FROM embeddings
WHERE len(vector) = 768;
COMMENT ON VIEW embeddings_768 IS 'Embeddings of 768 numbers, as arrays of that fixed size.';
CREATE VIEW embeddings_1024 AS
SELECT record_id, dataset, slice_id, level, class, token_row, token_col, vector::FLOAT[1024] AS vector
FROM embeddings
WHERE len(vector) = 1024;
COMMENT ON VIEW embeddings_1024 IS 'Embeddings of 1024 numbers, as arrays of that fixed size.';
CREATE VIEW embeddings_1280 AS
SELECT record_id, dataset, slice_id, level, class, token_row, token_col, vector::FLOAT[1280] AS vector
FROM embeddings
WHERE len(vector) = 1280;
COMMENT ON VIEW embeddings_1280 IS 'Embeddings of 1280 numbers, as arrays of that fixed size.';
CREATE VIEW embeddings_1536 AS
SELECT record_id, dataset, slice_id, level, class, token_row, token_col, vector::FLOAT[1536] AS vector
FROM embeddings
WHERE len(vector) = 1536;
COMMENT ON VIEW embeddings_1536 IS 'Embeddings of 1536 numbers, as arrays of that fixed size.';
