-- Rows of records that are older than a renaming get the new name.
UPDATE runs
SET train_on = array_to_string(
    list_transform(
        string_split(train_on, ' + '), lambda name: if(name = $old_name, $new_name, name)
    ),
    ' + '
)
WHERE run_id < $rename_id AND contains(train_on, $old_name);

UPDATE slice_metrics SET eval_on = $new_name WHERE run_id < $rename_id AND eval_on = $old_name;

UPDATE training_slices SET dataset = $new_name WHERE run_id < $rename_id AND dataset = $old_name;

UPDATE evaluations
SET eval_on = list_transform(eval_on, lambda name: if(name = $old_name, $new_name, name))
WHERE evaluation_id < $rename_id AND list_contains(eval_on, $old_name);

UPDATE evaluation_metrics SET eval_on = $new_name WHERE evaluation_id < $rename_id AND eval_on = $old_name;

UPDATE shape_metrics SET eval_on = $new_name WHERE measurement_id < $rename_id AND eval_on = $old_name;

UPDATE feature_sets SET dataset = $new_name WHERE record_id < $rename_id AND dataset = $old_name;

UPDATE audits SET dataset = $new_name WHERE audit_id < $rename_id AND dataset = $old_name;

UPDATE embeddings SET dataset = $new_name WHERE record_id < $rename_id AND dataset = $old_name;

UPDATE gap_measurements
SET selections = list_transform(
    selections,
    lambda domain: if(
        string_split(domain, ':')[1] = $old_name, $new_name || substr(domain, len($old_name) + 1), domain
    )
)
WHERE gap_id < $rename_id;

UPDATE familiarity SET domain = $new_name || substr(domain, len($old_name) + 1)
WHERE check_id < $rename_id AND string_split(domain, ':')[1] = $old_name;

UPDATE familiarity SET nearest = $new_name WHERE check_id < $rename_id AND nearest = $old_name;

UPDATE gaps SET domain_a = $new_name || substr(domain_a, len($old_name) + 1)
WHERE gap_id < $rename_id AND string_split(domain_a, ':')[1] = $old_name;

UPDATE gaps SET domain_b = $new_name || substr(domain_b, len($old_name) + 1)
WHERE gap_id < $rename_id AND string_split(domain_b, ':')[1] = $old_name;

UPDATE gap_points SET domain = $new_name || substr(domain, len($old_name) + 1)
WHERE gap_id < $rename_id AND string_split(domain, ':')[1] = $old_name;

-- The record of the new name has these.
DELETE FROM slices WHERE record_id < $rename_id AND dataset = $old_name;

DELETE FROM datasets WHERE record_id < $rename_id AND dataset = $old_name;
