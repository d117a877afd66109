package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/imapserver"
	"waxwing/internal/pop3server"
)

// allTables makes every table from the sources below root.
func allTables(root string) (map[string]table, error) {
	tables := map[string]table{}
	var errs []error
	for _, make := range []func(string, map[string]table) error{smtpTables, imapTables, pop3Tables, sieveTables, settingsTable, metricsTable} {
		errs = append(errs, make(root, tables))
	}
	return tables, errors.Join(errs...)
}

// sources parses packages below internal.
func sources(root string, packages ...string) ([]*ast.File, error) {
	var all []*ast.File
	for _, p := range packages {
		files, err := parseDir(filepath.Join(root, "internal", filepath.FromSlash(p)))
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	return all, nil
}

// matcher gives each thing of the code its words, and finds words that no thing needs.
type matcher[W any] struct {
	what string
	all  map[string]W
	used map[string]bool
	errs []error
}

func match[W any](what string, all map[string]W) *matcher[W] {
	return &matcher[W]{what: what, all: all, used: map[string]bool{}}
}

func (m *matcher[W]) of(key string) W {
	w, ok := m.all[key]
	if !ok {
		m.errs = append(m.errs, fmt.Errorf("%s %q has no words", m.what, key))
	}
	m.used[key] = true
	return w
}

func (m *matcher[W]) done() error {
	for key := range m.all {
		if !m.used[key] {
			m.errs = append(m.errs, fmt.Errorf("the words of %s %q are about nothing", m.what, key))
		}
	}
	return errors.Join(m.errs...)
}

// doc is what a thing of a protocol means, and where that is defined.
type doc struct {
	means words
	rfc   string
}

func smtpTables(root string, tables map[string]table) error {
	server, err := sources(root, "smtpserver")
	if err != nil {
		return err
	}
	all, err := sources(root, "smtpserver", "intake", "smtp")
	if err != nil {
		return err
	}
	return errors.Join(smtpCommands(server, tables), smtpParams(all, tables), smtpExtensions(server, tables), smtpReplies(all, tables), smtpLimits(server, tables))
}

func smtpCommands(files []*ast.File, tables map[string]table) error {
	docs := match("SMTP command", smtpCommandWords)
	message := names(constant(files, "needMessage"))
	t := table{head: []words{{"Command", "命令"}, {"Where", "可用端口"}, {"Needs", "前提"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, r := range rows(files, "verb") {
		needs := names(r.fields["needs"])
		if run := names(r.fields["run"]); slices.Contains(run, "cmdData") || slices.Contains(run, "cmdBdat") {
			needs = message // asked by the command itself
		}
		where := words{"all ports", "所有端口"}
		if when := names(r.fields["when"]); len(when) > 0 {
			where = smtpWhere[when[0]]
		}
		var en, zh []string
		for _, n := range needs {
			w, ok := smtpNeeds[n]
			if !ok {
				return fmt.Errorf("condition %s has no words", n)
			}
			en, zh = append(en, w[english]), append(zh, w[chinese])
		}
		d := docs.of(r.name)
		t.rows = append(t.rows, []words{code(r.name), where, {strings.Join(en, ", "), strings.Join(zh, "、")}, d.means, same(d.rfc)})
	}
	tables["smtp-commands"] = t
	return docs.done()
}

// smtpParams lists the parameters of MAIL and RCPT.
func smtpParams(files []*ast.File, tables map[string]table) error {
	docs := match("SMTP parameter", smtpParamWords)
	t := table{head: []words{{"Parameter", "参数"}, {"Of", "命令"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, list := range []struct{ variable, command string }{{"mailParams", "MAIL"}, {"rcptParams", "RCPT"}} {
		ast.Inspect(constant(files, list.variable), func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if name, ok := text(fields(lit)["param"]); ok {
				d := docs.of(name)
				t.rows = append(t.rows, []words{code(name), code(list.command), d.means, same(d.rfc)})
			}
			return true
		})
	}
	tables["smtp-parameters"] = t
	return docs.done()
}

// smtpExtensions finds the EHLO keywords: the first word of the texts given to keyword(), of the texts that the table's
// own functions build, and of the one for AUTH.
func smtpExtensions(files []*ast.File, tables map[string]table) error {
	docs := match("EHLO keyword", smtpExtensionWords)
	var found []string
	add := func(s string) {
		word, _, _ := strings.Cut(s, " ")
		if word != "" && word == strings.ToUpper(word) && !slices.Contains(found, word) {
			found = append(found, word)
		}
	}
	for _, s := range callTexts(files, "keyword", 0) {
		add(s)
	}
	for _, part := range []ast.Node{constant(files, "extensions"), function(files, "authKeyword")} {
		ast.Inspect(part, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if s, ok := text(e); ok && strings.Contains(s, " ") {
					add(s)
				}
			}
			return true
		})
	}
	slices.Sort(found)
	t := table{head: []words{{"Keyword", "关键字"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, k := range found {
		d := docs.of(k)
		t.rows = append(t.rows, []words{code(k), d.means, same(d.rfc)})
	}
	tables["smtp-extensions"] = t
	return docs.done()
}

func smtpReplies(files []*ast.File, tables map[string]table) error {
	docs := match("SMTP reply", smtpReplyWords)
	t := table{head: []words{{"Reply", "应答"}, {"Meaning", "含义"}, {"Texts", "文本"}}}
	for _, r := range replies(files) {
		texts := make([]string, len(r.texts))
		for i, s := range r.texts {
			s = strings.NewReplacer("<%s>", "<address>", "%s field", "… field", "of %s", "of …", "expected %s<", "expected …<", "%d", "N").Replace(s)
			texts[i] = "`" + s + "`"
		}
		t.rows = append(t.rows, []words{code(r.key()), docs.of(r.key()), same(strings.Join(texts, "<br>"))})
	}
	tables["smtp-replies"] = t
	return docs.done()
}

func smtpLimits(files []*ast.File, tables map[string]table) error {
	found, err := defaults(files, "withDefaults")
	if err != nil {
		return err
	}
	return limitTable("smtp-limits", found, smtpLimitWords, tables)
}

// limitTable makes a table of limits.
func limitTable(name string, found []limit, means map[string]words, tables map[string]table) error {
	docs := match(name, means)
	t := table{head: []words{{"Limit", "限制"}, {"Default", "默认值"}}}
	for _, l := range found {
		w := docs.of(l.name)
		if w[english] == "" {
			continue // set by the configuration, and told there
		}
		t.rows = append(t.rows, []words{w, amount(l)})
	}
	tables[name] = t
	return docs.done()
}

// amount writes a limit with its unit, where a time or a power of two has one.
func amount(l limit) words {
	switch {
	case l.d >= time.Hour && l.d%time.Hour == 0:
		return words{fmt.Sprintf("%d h", l.d/time.Hour), fmt.Sprintf("%d 小时", l.d/time.Hour)}
	case l.d >= time.Minute && l.d%time.Minute == 0:
		return words{fmt.Sprintf("%d min", l.d/time.Minute), fmt.Sprintf("%d 分钟", l.d/time.Minute)}
	case l.d%time.Second != 0:
		return words{fmt.Sprintf("%d ms", l.d/time.Millisecond), fmt.Sprintf("%d 毫秒", l.d/time.Millisecond)}
	case l.d > 0:
		return words{fmt.Sprintf("%d s", l.d/time.Second), fmt.Sprintf("%d 秒", l.d/time.Second)}
	case l.n >= 1<<20 && l.n%(1<<20) == 0:
		return same(fmt.Sprintf("%d MiB", l.n>>20))
	case l.n >= 1<<10 && l.n%(1<<10) == 0:
		return same(fmt.Sprintf("%d KiB", l.n>>10))
	}
	return same(grouped(l.n))
}

// grouped writes 10000 as 10,000.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func imapTables(root string, tables map[string]table) error {
	files, err := sources(root, "imapserver")
	if err != nil {
		return err
	}
	t := table{head: []words{{"Command", "命令"}, {"States", "状态"}, {"Capability", "能力"}, {"Source", "出处"}}}
	for _, c := range imapserver.CommandDocs() {
		var en, zh []string
		for _, s := range c.States {
			w, ok := imapStates[s]
			if !ok {
				return fmt.Errorf("state %s has no words", s)
			}
			en, zh = append(en, w[english]), append(zh, w[chinese])
		}
		source := same(c.RFC)
		if w, ok := imapSources[c.RFC]; ok {
			source = w
		}
		t.rows = append(t.rows, []words{code(c.Name), {strings.Join(en, ", "), strings.Join(zh, "、")}, code(c.Capability), source})
	}
	tables["imap-commands"] = t
	l := imapserver.DefaultLimits
	return errors.Join(imapCapabilities(tables), imapCodes(files, tables), limitTable("imap-limits", []limit{
		{name: "LineBefore", n: int64(l.LineBefore)},
		{name: "Line", n: int64(l.Line)},
		{name: "Literal", n: int64(l.Literal)},
		{name: "OctetsBefore", n: int64(l.OctetsBefore)},
		{name: "TimeBefore", d: l.TimeBefore},
		{name: "Tries", n: int64(l.Tries)},
		{name: "Errors", n: int64(l.Errors)},
		{name: "Idle", d: l.Idle},
		{name: "Read", d: l.Read},
		{name: "Write", d: l.Write},
		{name: "MinRate", n: int64(l.MinRate)},
		{name: "Bulk", d: l.Bulk},
	}, imapLimitWords, tables))
}

func imapCapabilities(tables map[string]table) error {
	docs := match("IMAP capability", imapCapabilityWords)
	all := imapserver.Capabilities()
	keys := make([]string, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	t := table{head: []words{{"Capability", "能力"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, k := range keys {
		t.rows = append(t.rows, []words{code(k), docs.of(k), same(all[k])})
	}
	tables["imap-capabilities"] = t
	return docs.done()
}

// imapCodes are the response codes of refusals: those given to no(), and those of the store's failures.
func imapCodes(files []*ast.File, tables map[string]table) error {
	docs := match("IMAP response code", imapCodeWords)
	found := callTexts(files, "no", 0)
	storeCodes, ok := constant(files, "storeCodes").(*ast.CompositeLit)
	if !ok {
		return errors.New("storeCodes is no list any more")
	}
	for _, e := range storeCodes.Elts {
		if lit, ok := e.(*ast.CompositeLit); ok && len(lit.Elts) == 3 {
			if s, ok := text(lit.Elts[1]); ok {
				found = append(found, s)
			}
		}
	}
	slices.Sort(found)
	t := table{head: []words{{"Code", "代码"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, k := range slices.Compact(found) {
		if k == "" {
			continue
		}
		k, _, _ = strings.Cut(k, " ")
		d := docs.of(k)
		t.rows = append(t.rows, []words{code("NO [" + k + "]"), d.means, same(d.rfc)})
	}
	tables["imap-codes"] = t
	return docs.done()
}

func pop3Tables(root string, tables map[string]table) error {
	files, err := sources(root, "pop3server")
	if err != nil {
		return err
	}
	docs := match("POP3 command", pop3CommandWords)
	t := table{head: []words{{"Command", "命令"}, {"States", "状态"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, r := range rows(files, "name") {
		states := names(r.fields["states"])
		if len(states) != 1 {
			return fmt.Errorf("states of %s are not one word", r.name)
		}
		state, ok := pop3States[states[0]]
		if !ok {
			return fmt.Errorf("state %s has no words", states[0])
		}
		d := docs.of(r.name)
		t.rows = append(t.rows, []words{code(r.name), state, d.means, same(d.rfc)})
	}
	tables["pop3-commands"] = t
	l := pop3server.DefaultLimits
	return errors.Join(docs.done(), pop3Capabilities(files, tables), pop3Codes(files, tables), limitTable("pop3-limits", []limit{
		{name: "Line", n: int64(l.Line)},
		{name: "OctetsBefore", n: int64(l.OctetsBefore)},
		{name: "TimeBefore", d: l.TimeBefore},
		{name: "Tries", n: int64(l.Tries)},
		{name: "Errors", n: int64(l.Errors)},
		{name: "Idle", d: l.Idle},
		{name: "Read", d: l.Read},
		{name: "Write", d: l.Write},
		{name: "Verify", n: l.Verify},
	}, pop3LimitWords, tables))
}

// pop3Capabilities are the lines of CAPA: of always(), of the functions of the table's capa column, and of extensions.
func pop3Capabilities(files []*ast.File, tables map[string]table) error {
	docs := match("POP3 capability", pop3CapabilityWords)
	found := callTexts(files, "always", 0)
	parts := []ast.Node{constant(files, "extensions")}
	for _, r := range rows(files, "name") {
		if id, ok := r.fields["capa"].(*ast.Ident); ok {
			parts = append(parts, function(files, id.Name))
		}
	}
	for _, part := range parts {
		ast.Inspect(part, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if s, ok := text(e); ok && strings.TrimSpace(s) != "" {
					found = append(found, strings.TrimSpace(s))
				}
			}
			return true
		})
	}
	slices.Sort(found)
	t := table{head: []words{{"Capability", "能力"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, k := range slices.Compact(found) {
		d := docs.of(k)
		t.rows = append(t.rows, []words{code(k), d.means, same(d.rfc)})
	}
	tables["pop3-capabilities"] = t
	return docs.done()
}

func pop3Codes(files []*ast.File, tables map[string]table) error {
	docs := match("POP3 response code", pop3CodeWords)
	found := callTexts(files, "refuseFair", 0)
	slices.Sort(found)
	t := table{head: []words{{"Code", "代码"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, k := range found {
		if k = strings.TrimSpace(k); k != "" {
			d := docs.of(k)
			t.rows = append(t.rows, []words{code("-ERR " + k), d.means, same(d.rfc)})
		}
	}
	tables["pop3-codes"] = t
	return docs.done()
}

func settingsTable(_ string, tables map[string]table) error {
	docs := match("setting", settingWords)
	t := table{head: []words{{"Setting", "设置"}, {"Default", "默认值"}, {"Meaning", "含义"}}}
	for _, s := range directory.DefaultSettings().List() {
		zh := docs.of(s.Name)
		t.rows = append(t.rows, []words{code(s.Name), code(string(s.Default)), {s.Doc, zh}})
	}
	tables["settings"] = t
	return docs.done()
}

// labelNames reads []string{"a"} or prometheus.Labels{"a": value}.
func labelNames(e ast.Expr) string {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	var all []string
	for _, e := range lit.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			e = pair.Key
		}
		if s, ok := text(e); ok {
			all = append(all, "`"+s+"`")
		}
	}
	return strings.Join(all, ", ")
}

// metricsTable reads the calls prometheus.NewXVec(prometheus.YOpts{Name:, Help:}, labels), NewX and NewXFunc.
func metricsTable(root string, tables map[string]table) error {
	files, err := sources(root, "server", "telemetry")
	if err != nil {
		return err
	}
	docs := match("metric", metricWords)
	type metric struct{ name, kind, labels, help string }
	var found []metric
	inspect(files, func(call *ast.CallExpr) {
		fn, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || len(call.Args) == 0 {
			return
		}
		lit, ok := call.Args[0].(*ast.CompositeLit)
		if !ok {
			return
		}
		f := fields(lit)
		name, ok := text(f["Name"])
		help, hasHelp := text(f["Help"])
		if !ok || !hasHelp {
			return
		}
		kind := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(fn.Sel.Name, "New"), "Vec"), "Func"))
		m := metric{name: name, kind: kind, help: help, labels: labelNames(f["ConstLabels"])}
		if strings.HasSuffix(fn.Sel.Name, "Vec") && len(call.Args) > 1 {
			m.labels = labelNames(call.Args[1])
		}
		found = append(found, m)
	})
	slices.SortFunc(found, func(a, b metric) int { return cmp.Compare(a.name, b.name) })
	t := table{head: []words{{"Metric", "指标"}, {"Type", "类型"}, {"Labels", "标签"}, {"Meaning", "含义"}}}
	for _, m := range found {
		t.rows = append(t.rows, []words{code(m.name), same(m.kind), same(m.labels), {m.help, docs.of(m.name)}})
	}
	tables["metrics"] = t
	return docs.done()
}
