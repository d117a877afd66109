package control

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/milter"
)

// Operations on milters: the setting milter.chain, entry by entry.
var (
	MilterList   = operation("milter.list", (*Service).milterList)
	MilterSet    = operation("milter.set", (*Service).milterSet)
	MilterRemove = operation("milter.remove", (*Service).milterRemove)
	MilterTest   = operation("milter.test", (*Service).milterTest)
)

// Milters are the milters in the order in which they are asked.
type Milters struct {
	Milters []directory.Milter `json:"milters"`
}

// MilterChange adds a milter, or changes the one of that name.
type MilterChange struct {
	Milter   directory.Milter `json:"milter"`
	Position int              `json:"position,omitempty"` // from 1; 0: where it is, or the last
}

// MilterRef names a milter.
type MilterRef struct {
	Name string `json:"name"`
}

// MilterTested is what a milter said when it was connected to.
type MilterTested struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Took  string `json:"took,omitempty"`
	Error string `json:"error,omitempty"`
	// Wants are the actions that it may take, Skips the steps that it does not want to see.
	Wants []string `json:"wants,omitempty"`
	Skips []string `json:"skips,omitempty"`
}

func (s *Service) milters() (list []directory.Milter, version int64, err error) {
	now := s.dir.Settings()
	list, err = directory.ParseMilters(now.Milters)
	return list, now.Version, err
}

func (s *Service) milterList(context.Context, Done) (Milters, error) {
	list, _, err := s.milters()
	return Milters{Milters: append([]directory.Milter{}, list...)}, err
}

func (s *Service) milterSet(ctx context.Context, req MilterChange) (Milters, error) {
	if field, want := req.Milter.Check(); want != "" {
		return Milters{}, &Error{Kind: Invalid, Field: field, Text: field + ": " + want}
	}
	list, version, err := s.milters()
	if err != nil {
		return Milters{}, err
	}
	at := slices.IndexFunc(list, func(m directory.Milter) bool { return m.Name == req.Milter.Name })
	if at >= 0 {
		list = slices.Delete(list, at, at+1)
	} else {
		at = len(list)
	}
	if req.Position > 0 {
		at = min(req.Position-1, len(list))
	}
	return s.saveMilters(ctx, version, slices.Insert(list, at, req.Milter))
}

func (s *Service) milterRemove(ctx context.Context, req MilterRef) (Milters, error) {
	list, version, err := s.milters()
	if err != nil {
		return Milters{}, err
	}
	at := slices.IndexFunc(list, func(m directory.Milter) bool { return m.Name == req.Name })
	if at < 0 {
		return Milters{}, Errorf(NotFound, "there is no milter %s", req.Name)
	}
	return s.saveMilters(ctx, version, slices.Delete(list, at, at+1))
}

// saveMilters writes the setting, unless somebody changed settings meanwhile.
func (s *Service) saveMilters(ctx context.Context, version int64, list []directory.Milter) (Milters, error) {
	text, err := json.Marshal(directory.FormatMilters(list))
	if err != nil {
		return Milters{}, err
	}
	_, err = s.dir.ChangeSettings(ctx, version, actor(ctx), map[string]json.RawMessage{"milter.chain": text})
	if err != nil {
		return Milters{}, err
	}
	s.log.Info("milters changed", "milters", len(list), "actor", actor(ctx))
	return Milters{Milters: append([]directory.Milter{}, list...)}, nil
}

// testWait bounds the test of one milter.
const testWait = 30 * time.Second

func (s *Service) milterTest(ctx context.Context, req MilterRef) ([]MilterTested, error) {
	list, _, err := s.milters()
	if err != nil {
		return nil, err
	}
	out := []MilterTested{}
	for _, m := range list {
		if req.Name != "" && m.Name != req.Name {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, testWait)
		p, err := milter.New(milter.Options{}).Probe(ctx, m)
		cancel()
		tested := MilterTested{Name: m.Name, OK: err == nil, Wants: p.Wants, Skips: p.Skips}
		if err != nil {
			tested.Error = err.Error()
		} else {
			tested.Took = p.Took.Round(time.Microsecond).String()
		}
		out = append(out, tested)
	}
	if len(out) == 0 && req.Name != "" {
		return nil, Errorf(NotFound, "there is no milter %s", req.Name)
	}
	return out, nil
}
