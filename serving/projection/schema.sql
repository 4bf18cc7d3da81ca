-- The projection of the topics: disposable, and rebuilt from the topics whenever it does not fit them.
CREATE TABLE followed (
    topic TEXT PRIMARY KEY,
    id TEXT NOT NULL                    -- Kafka's id: a topic that is created again has another one
) WITHOUT ROWID;
CREATE TABLE positions (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,            -- of the next record
    time INTEGER NOT NULL,              -- of the latest record, epoch milliseconds
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- The sets of which an incident is a pure function.
CREATE TABLE updates (
    incident TEXT NOT NULL,
    origin_partition INTEGER NOT NULL,
    origin_offset INTEGER NOT NULL,
    partition INTEGER NOT NULL,         -- place of the record in the alerts topic, the latest of repetitions
    offset INTEGER NOT NULL,
    value BLOB NOT NULL,
    event_id TEXT NOT NULL,             -- of the event of the publication; empty without one
    UNIQUE (incident, origin_partition, origin_offset)
);
CREATE INDEX updates_by_origin ON updates (origin_partition, origin_offset);
CREATE INDEX updates_by_event ON updates (event_id) WHERE event_id <> '';
CREATE INDEX updates_by_place ON updates (partition, offset);
CREATE TABLE campaigns (
    id TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE members (
    incident TEXT NOT NULL,
    campaign TEXT NOT NULL,
    PRIMARY KEY (incident, campaign)
) WITHOUT ROWID;
CREATE INDEX members_by_campaign ON members (campaign);
CREATE TABLE actions (
    incident TEXT NOT NULL,
    offset INTEGER NOT NULL,            -- in the topic of decisions
    key BLOB NOT NULL,                  -- of the record, by which it is deleted
    value BLOB NOT NULL,                -- the action on this incident alone
    PRIMARY KEY (incident, offset)
) WITHOUT ROWID;
CREATE INDEX actions_by_key ON actions (key);
CREATE TABLE forgotten (                -- users whose updates are dropped up to an offset of the alerts topic
    offset INTEGER PRIMARY KEY,         -- in the topic of decisions
    key BLOB NOT NULL,                  -- of the record, by which it is deleted
    value BLOB NOT NULL
);
CREATE TABLE mutes (                    -- in force; they follow from the actions
    entity_kind TEXT NOT NULL,
    entity TEXT NOT NULL,
    incident TEXT NOT NULL,             -- from which it was made
    offset INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (entity_kind, entity, incident, offset)
) WITHOUT ROWID;
CREATE INDEX mutes_by_incident ON mutes (incident);
CREATE TABLE unmaskings (               -- requests for names; they follow from the actions
    incident TEXT NOT NULL,
    place INTEGER NOT NULL,             -- order of the requests of the incident
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    person TEXT NOT NULL,               -- who has asked
    at TEXT NOT NULL,
    until TEXT NOT NULL,                -- empty if names are not shown
    value BLOB NOT NULL,
    PRIMARY KEY (incident, place)
) WITHOUT ROWID;
CREATE INDEX unmaskings_by_id ON unmaskings (id);
CREATE INDEX unmaskings_by_state ON unmaskings (state, at DESC);
CREATE INDEX unmaskings_by_person ON unmaskings (person, until);
CREATE TABLE about (                    -- what the contents depend on besides the topics
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- What lists show and filter by, computed from the sets.
CREATE TABLE incidents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: rows are erased and written again
    id TEXT NOT NULL UNIQUE,
    entity_kind TEXT NOT NULL,
    entity TEXT NOT NULL,
    severity INTEGER NOT NULL,          -- place in streamguard.risk.SEVERITIES
    risk REAL NOT NULL,
    evidence REAL NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    alerts INTEGER NOT NULL,
    updates INTEGER NOT NULL,
    technique TEXT NOT NULL,            -- empty without one
    patterns TEXT NOT NULL,             -- names, each between spaces
    kind TEXT NOT NULL,                 -- the strongest pattern, or the strongest reason
    status TEXT NOT NULL,
    assignee TEXT NOT NULL,
    classification TEXT NOT NULL,       -- empty for an open one
    snoozed_until TEXT NOT NULL,        -- time of the server's clock; empty without a snooze
    muted INTEGER NOT NULL,
    last_action TEXT NOT NULL,          -- which the next action names as expected; empty without one
    campaign TEXT NOT NULL,             -- of several incidents; empty for a lone one
    campaign_incidents INTEGER NOT NULL,
    entered INTEGER NOT NULL,           -- accounts that a stranger entered
    lead INTEGER NOT NULL,              -- 1 if it stands for its campaign in a list, or is a lone one
    raised INTEGER NOT NULL,            -- 1: a person is called; 0: recorded only
    origin_partition INTEGER NOT NULL,  -- of the current update, which has the incident as JSON
    origin_offset INTEGER NOT NULL,
    shape INTEGER NOT NULL,             -- of `shapes`
    pseudonym TEXT NOT NULL             -- of the entity; it depends on the key of the server, so no export has it
);
CREATE INDEX incidents_by_pseudonym ON incidents (pseudonym);
-- Evidence decides the severity, so that a list of weak incidents would begin far behind in one order of all.
CREATE INDEX incidents_by_severity ON incidents (severity, evidence DESC, id, shape, last_ms);
CREATE INDEX incidents_by_time ON incidents (last_ms DESC, id, shape);
CREATE INDEX incidents_by_shape ON incidents (shape, last_ms, evidence, id);
CREATE INDEX incidents_by_entity ON incidents (entity, last_ms, shape, evidence, id);
-- Of a campaign, the incident that its row in a list shows is among the first, and its shapes are counted without a table.
CREATE INDEX incidents_by_campaign ON incidents (campaign, evidence DESC, id DESC, shape, last_ms, status, muted)
    WHERE campaign <> '';
CREATE INDEX incidents_by_lead ON incidents (campaign) WHERE lead = 1 AND campaign <> '';
CREATE INDEX incidents_by_member ON incidents (shape, campaign, last_ms) WHERE campaign <> '';
-- What lists are filtered and counted by, other than names and times: incidents with the same values share a shape. There
-- are some thousand shapes whatever the number of incidents, so that counting a list reads these and no incident.
CREATE TABLE shapes (
    number INTEGER PRIMARY KEY,
    severity INTEGER NOT NULL,
    entity_kind TEXT NOT NULL,
    kind TEXT NOT NULL,
    patterns TEXT NOT NULL,             -- JSON array, sorted; each once
    techniques TEXT NOT NULL,           -- the same
    status TEXT NOT NULL,
    assignee TEXT NOT NULL,
    classification TEXT NOT NULL,
    muted INTEGER NOT NULL,
    lead INTEGER NOT NULL,              -- 2: alone; 1: stands for its campaign; 0: another one does
    raised INTEGER NOT NULL,
    incidents INTEGER NOT NULL,         -- how many have it; at least 1
    UNIQUE (
        kind, patterns, techniques, severity, entity_kind, status, assignee, classification, muted, lead, raised
    )
);
-- Totals that are kept instead of counted: a list of all incidents takes a second at a million of them.
CREATE TABLE days (
    day INTEGER PRIMARY KEY,            -- since 1970, of the latest event
    incidents INTEGER NOT NULL,         -- at least 1
    alerts INTEGER NOT NULL
);
CREATE TABLE entities (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    score REAL NOT NULL,                -- see `projection.ranking`
    incidents INTEGER NOT NULL,
    open INTEGER NOT NULL,
    severity INTEGER NOT NULL,          -- the highest
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX entities_by_score ON entities (kind, score DESC, name);
CREATE TABLE changed_entities (         -- whose row of `entities` has to be computed
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TRIGGER incident_comes AFTER INSERT ON incidents BEGIN
    INSERT INTO days VALUES (new.last_ms / 86400000, 1, new.alerts)
        ON CONFLICT DO UPDATE SET incidents = incidents + 1, alerts = alerts + excluded.alerts;
END;
CREATE TRIGGER incident_goes AFTER DELETE ON incidents BEGIN
    UPDATE days SET incidents = incidents - 1, alerts = alerts - old.alerts WHERE day = old.last_ms / 86400000;
    DELETE FROM days WHERE day = old.last_ms / 86400000 AND incidents = 0;
END;
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = "unicode61 tokenchars '-_.@:'");
