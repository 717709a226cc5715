-- How well every mask fits every image, by the newest audit of a dataset.
-- parameter: dataset = , name of the dataset; the one audited last where it is empty
-- columns: dataset, audit_id, verdict, own_mask_wins, displaced, undecided, evidence, examined, cause, orientation, channel, image, mask, score, declared, assigned
WITH newest AS (
    SELECT max(audit_id) AS audit_id
    FROM audits
    WHERE $dataset IN ('', dataset)
)
SELECT
    audits.dataset,
    audits.audit_id,
    audits.verdict,
    audits.own_mask_wins,
    audits.displaced,
    audits.undecided,
    audits.evidence,
    audits.examined,
    audits.cause,
    audits.orientation,
    audits.channel,
    scores.image,
    scores.mask,
    scores.score,
    scores.declared,
    scores.assigned
FROM audit_scores AS scores
JOIN audits USING (audit_id)
JOIN newest USING (audit_id)
ORDER BY scores.rowid;
