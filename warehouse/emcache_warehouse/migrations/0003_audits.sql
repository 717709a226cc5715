-- Audits of datasets: what every check found, and how well every mask fits every image.

CREATE TABLE audits (
    audit_id      VARCHAR PRIMARY KEY,
    dataset       VARCHAR NOT NULL,
    verdict       VARCHAR NOT NULL,
    own_mask_wins DOUBLE,
    p_value       DOUBLE,
    cause         VARCHAR,
    orientation   VARCHAR,
    channel       VARCHAR,
    strength      DOUBLE,
    examined      BIGINT,
    audit_key     VARCHAR
);
COMMENT ON TABLE audits IS 'One row per audit of a dataset.';
COMMENT ON COLUMN audits.audit_id IS 'Record of the audit.';
COMMENT ON COLUMN audits.dataset IS 'Name of the dataset.';
COMMENT ON COLUMN audits.verdict IS 'pass, warn or fail: the gravest of its checks.';
COMMENT ON COLUMN audits.own_mask_wins IS 'Share of the examined slices to which the best assignment gives their own mask.';
COMMENT ON COLUMN audits.p_value IS 'Of the declared pairing: share of random pairings that fit as well.';
COMMENT ON COLUMN audits.cause IS 'Why another pairing fits better: string order, reversed, ...; NULL where none does.';
COMMENT ON COLUMN audits.orientation IS 'How masks had to be turned to fit.';
COMMENT ON COLUMN audits.channel IS 'What of the images spoke most clearly.';
COMMENT ON COLUMN audits.strength IS 'Best assignment above that of shuffled scores, in their standard deviations.';
COMMENT ON COLUMN audits.examined IS 'Slices that were compared with masks.';
COMMENT ON COLUMN audits.audit_key IS 'Hash of slices, masks, splits and threshold that were audited.';

CREATE TABLE audit_checks (
    audit_id VARCHAR NOT NULL,
    name     VARCHAR NOT NULL,
    verdict  VARCHAR NOT NULL,
    message  VARCHAR NOT NULL,
    PRIMARY KEY (audit_id, name)
);
COMMENT ON TABLE audit_checks IS 'One row per check of an audit.';
COMMENT ON COLUMN audit_checks.audit_id IS 'Record of the audit.';
COMMENT ON COLUMN audit_checks.name IS 'pairing, duplicates, leakage, ...';
COMMENT ON COLUMN audit_checks.verdict IS 'pass, warn or fail.';
COMMENT ON COLUMN audit_checks.message IS 'What was found, and what to do.';

CREATE TABLE audit_scores (
    audit_id VARCHAR NOT NULL,
    image    VARCHAR NOT NULL,
    mask     VARCHAR NOT NULL,
    score    DOUBLE NOT NULL,
    declared BOOLEAN NOT NULL,
    assigned BOOLEAN NOT NULL,
    PRIMARY KEY (audit_id, image, mask)
);
COMMENT ON TABLE audit_scores IS 'How well every examined mask fits every examined image.';
COMMENT ON COLUMN audit_scores.audit_id IS 'Record of the audit.';
COMMENT ON COLUMN audit_scores.image IS 'Slice whose image it is.';
COMMENT ON COLUMN audit_scores.mask IS 'Slice whose declared mask it is.';
COMMENT ON COLUMN audit_scores.score IS 'Centred by rows and columns; high where they fit.';
COMMENT ON COLUMN audit_scores.declared IS 'Whether this is the declared pair.';
COMMENT ON COLUMN audit_scores.assigned IS 'Whether the best assignment pairs them.';

COMMENT ON COLUMN runs.audit_accepted IS 'Whether the run was trained though an audit of its data failed; NULL where nothing was audited.';
