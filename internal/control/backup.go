package control

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"waxwing/internal/backup"
	"waxwing/internal/directory"
)

// Operations on backups. They work in the process that has the store open; reading a backup needs no store and is done by
// whoever holds the identity: no identity ever passes through an operation.
var (
	BackupNow    = operation("backup.now", (*Service).backupNow)
	BackupTest   = operation("backup.test", (*Service).backupTest)
	BackupStatus = operation("backup.status", (*Service).backupStatus)
	BackupPlan   = operation("backup.plan", (*Service).backupPlan)
)

// BackupRequest asks for a backup. What is empty is as the settings say.
type BackupRequest struct {
	Full            bool     `json:"full,omitempty"` // use nothing of earlier backups
	Target          string   `json:"target,omitempty"`
	CredentialsFile string   `json:"credentials_file,omitempty"` // as the server sees the path
	Recipients      []string `json:"recipients,omitempty"`
	Rate            *int64   `json:"rate,omitempty"`
}

// Backups is what the server knows of its backups.
type Backups struct {
	backup.State
	Target          string           `json:"target"`
	CredentialsFile string           `json:"credentials_file,omitempty"`
	Recipients      []string         `json:"recipients"`
	Schedule        string           `json:"schedule"`
	Rate            int64            `json:"rate"`
	KeepDaily       int              `json:"keep_daily"`
	KeepWeekly      int              `json:"keep_weekly"`
	KeepMonthly     int              `json:"keep_monthly"`
	TestDays        int              `json:"test_days"`
	TestKeyFile     string           `json:"test_key_file,omitempty"`
	Next            time.Time        `json:"next,omitzero"` // when the next one is due
	Late            bool             `json:"late"`          // the last good one is older than two intervals
	Now             *backup.Activity `json:"now,omitempty"`
}

// errNoAgent says that this service can't make backups.
var errNoAgent = Errorf(Unavailable, "backups are not possible here")

func (s *Service) backupNow(ctx context.Context, req BackupRequest) (backup.Record, error) {
	if s.backup == nil {
		return backup.Record{}, errNoAgent
	}
	p := s.backup.Plan()
	if req.Target != "" && req.Target != p.Target {
		// What the settings say is kept belongs to their own target.
		p.Target, p.Credentials, p.Keep = req.Target, req.CredentialsFile, backup.Retention{}
	}
	if req.CredentialsFile != "" {
		p.Credentials = req.CredentialsFile
	}
	if len(req.Recipients) > 0 {
		p.Recipients = req.Recipients
	}
	if req.Rate != nil {
		p.Rate = *req.Rate
	}
	rec, err := s.backup.Now(ctx, p, req.Full)
	if rec == nil {
		rec = &backup.Record{}
	}
	s.log.Info("backup asked for", "target", p.Target, "id", rec.ID, "actor", actor(ctx), "error", err)
	return *rec, err
}

func (s *Service) backupTest(ctx context.Context, _ Done) (backup.TestRecord, error) {
	if s.backup == nil {
		return backup.TestRecord{}, errNoAgent
	}
	rec, err := s.backup.Test(ctx, s.backup.Plan())
	if rec == nil {
		rec = &backup.TestRecord{}
	}
	return *rec, err
}

func (s *Service) backupStatus(context.Context, Done) (Backups, error) {
	if s.backup == nil {
		return Backups{}, errNoAgent
	}
	st, err := s.backup.State()
	if err != nil {
		return Backups{}, err
	}
	set, plan := s.dir.Settings().Backup, s.backup.Plan()
	out := Backups{
		State: st, Target: set.Target, CredentialsFile: set.CredentialsFile, Recipients: plan.Recipients, Schedule: set.Schedule, Rate: set.Rate,
		KeepDaily: set.KeepDaily, KeepWeekly: set.KeepWeekly, KeepMonthly: set.KeepMonthly,
		TestDays: set.TestDays, TestKeyFile: set.TestKeyFile, Now: s.backup.Activity(),
	}
	now := s.clock()
	out.Next, out.Late = st.Due(plan, now), st.Late(plan, now)
	return out, nil
}

// BackupPlanChange changes the settings of backups; what is nil stays.
type BackupPlanChange struct {
	Target          *string `json:"target,omitempty"`
	CredentialsFile *string `json:"credentials_file,omitempty"`
	Recipients      *string `json:"recipients,omitempty"` // separated by spaces
	Schedule        *string `json:"schedule,omitempty"`
	Rate            *int64  `json:"rate,omitempty"`
	KeepDaily       *int    `json:"keep_daily,omitempty"`
	KeepWeekly      *int    `json:"keep_weekly,omitempty"`
	KeepMonthly     *int    `json:"keep_monthly,omitempty"`
	TestDays        *int    `json:"test_days,omitempty"`
	TestKeyFile     *string `json:"test_key_file,omitempty"`
}

// settings are the names and values of a change: the fields are called as the settings are.
func (c BackupPlanChange) settings() (map[string]json.RawMessage, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(fields))
	for name, value := range fields {
		out["backup."+name] = value
	}
	return out, nil
}

// backupPlan changes the settings. A schedule without what it needs is refused now, not in the night.
func (s *Service) backupPlan(ctx context.Context, req BackupPlanChange) (Backups, error) {
	changes, err := req.settings()
	if err != nil {
		return Backups{}, err
	}
	set := s.dir.Settings().Backup
	if given(req.Schedule, set.Schedule) != "" {
		switch {
		case given(req.Target, set.Target) == "":
			return Backups{}, &Error{Kind: Invalid, Field: "target", Text: "backup.target: a schedule needs a target"}
		case strings.TrimSpace(given(req.Recipients, set.Recipients)) == "":
			return Backups{}, &Error{Kind: Invalid, Field: "recipients", Text: "backup.recipients: " + backup.ErrNoRecipients.Error()}
		}
	}
	if _, err := s.dir.ChangeSettings(ctx, -1, directory.Actor(ctx), changes); err != nil {
		return Backups{}, err
	}
	return s.backupStatus(ctx, Done{})
}

// given is the changed value, or what is set.
func given(change *string, now string) string {
	if change != nil {
		return *change
	}
	return now
}
