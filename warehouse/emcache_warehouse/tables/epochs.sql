INSERT INTO epochs
SELECT
    parse_path(file.filename)[-2],
    file.epoch,
    file.train_loss,
    file.val_loss,
    file.val_iou_fg,
    file.seconds
FROM read_parquet($files, filename = true, hive_partitioning = false) AS file;
