-- Datasets that were given other names.
CREATE TABLE dataset_renames (
    rename_id VARCHAR PRIMARY KEY,
    old_name  VARCHAR NOT NULL,
    new_name  VARCHAR NOT NULL
);
COMMENT ON TABLE dataset_renames IS 'Every time that a dataset was given another name; rows of older records have the new one.';
COMMENT ON COLUMN dataset_renames.rename_id IS 'Record of the command.';
COMMENT ON COLUMN dataset_renames.old_name IS 'Name until then.';
COMMENT ON COLUMN dataset_renames.new_name IS 'Name from then on.';
