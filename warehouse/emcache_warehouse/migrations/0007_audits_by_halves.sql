-- Audits decide by what both halves of the pictures say.

ALTER TABLE audits DROP COLUMN p_value;
ALTER TABLE audits DROP COLUMN strength;
ALTER TABLE audits ADD COLUMN displaced BIGINT;
ALTER TABLE audits ADD COLUMN undecided BIGINT;
ALTER TABLE audits ADD COLUMN doubtful BIGINT;
ALTER TABLE audits ADD COLUMN evidence DOUBLE;
COMMENT ON COLUMN audits.own_mask_wins IS 'Share of the examined slices whose own mask fits best in both halves of the picture.';
COMMENT ON COLUMN audits.displaced IS 'Slices that certainly have the mask of another slice.';
COMMENT ON COLUMN audits.undecided IS 'Slices that the halves do not agree on.';
COMMENT ON COLUMN audits.doubtful IS 'Slices whose own mask fits no better than those of other slices.';
COMMENT ON COLUMN audits.evidence IS 'Standard errors by which the best known wrong order fits better than the declared one; negative where the declared one fits better.';
COMMENT ON COLUMN audits.channel IS 'What of the images spoke most clearly, as "strong gradients on the outline".';
COMMENT ON COLUMN audit_scores.score IS 'Centred by rows and columns, mean of both halves; high where image and mask fit.';
COMMENT ON COLUMN audit_scores.assigned IS 'Whether both halves pair them.';
COMMENT ON TABLE audit_scores IS 'How well masks fit images, for a run of slices that were compared with each other.';
