COMMENT ON COLUMN feature_sets.weights IS 'pretrained, random:SEED (untrained), hf:REPOSITORY@COMMIT, a short name, or file:NAME@HASH.';
COMMENT ON COLUMN runs.weights IS 'pretrained, random:SEED (untrained), hf:REPOSITORY@COMMIT, a short name, or file:NAME@HASH.';
