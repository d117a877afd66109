package main

import (
	"errors"
	"fmt"

	"waxwing/internal/sieve"
	"waxwing/internal/sieveserver"
)

// sieveTables are those of ManageSieve and of the language.
func sieveTables(root string, tables map[string]table) error {
	files, err := sources(root, "sieveserver")
	if err != nil {
		return err
	}
	docs := match("ManageSieve command", sieveCommandWords)
	t := table{head: []words{{"Command", "命令"}, {"States", "状态"}, {"Meaning", "含义"}, {"Source", "出处"}}}
	for _, r := range rows(files, "name") {
		states := names(r.fields["states"])
		if len(states) != 1 {
			return fmt.Errorf("states of %s are not one word", r.name)
		}
		state, ok := sieveStates[states[0]]
		if !ok {
			return fmt.Errorf("state %s has no words", states[0])
		}
		d := docs.of(r.name)
		t.rows = append(t.rows, []words{code(r.name), state, d.means, same(d.rfc)})
	}
	tables["sieve-commands"] = t
	l := sieveserver.DefaultLimits
	return errors.Join(docs.done(), sieveExtensions(tables), limitTable("sieve-limits", []limit{
		{name: "Line", n: int64(l.Line)},
		{name: "OctetsBefore", n: int64(l.OctetsBefore)},
		{name: "TimeBefore", d: l.TimeBefore},
		{name: "Tries", n: int64(l.Tries)},
		{name: "Errors", n: int64(l.Errors)},
		{name: "Idle", d: l.Idle},
		{name: "Read", d: l.Read},
		{name: "Write", d: l.Write},
		{name: "Drain", n: l.Drain},
	}, sieveLimitWords, tables))
}

func sieveExtensions(tables map[string]table) error {
	docs := match("Sieve extension", sieveExtensionWords)
	t := table{head: []words{{"Extension", "扩展"}, {"Gives", "提供"}, {"Source", "出处"}}}
	for _, name := range sieve.Extensions() {
		d := docs.of(name)
		t.rows = append(t.rows, []words{code(name), d.means, same(d.rfc)})
	}
	tables["sieve-extensions"] = t
	return docs.done()
}

var sieveStates = map[string]words{
	"stranger": {"before signing in", "登录前"},
	"user":     {"after signing in", "登录后"},
	"anyState": {"both", "均可"},
}

var sieveCommandWords = map[string]doc{
	"AUTHENTICATE":   {words{"Signs in by PLAIN or LOGIN, inside TLS.", "以 PLAIN 或 LOGIN 登录，须在 TLS 内。"}, "RFC 5804, 2.1"},
	"STARTTLS":       {words{"Turns TLS on; the capabilities are told again.", "启用 TLS，之后再次发送能力列表。"}, "RFC 5804, 2.2"},
	"LOGOUT":         {words{"Ends the session.", "结束会话。"}, "RFC 5804, 2.3"},
	"CAPABILITY":     {words{"Lists the capabilities.", "列出能力。"}, "RFC 5804, 2.4"},
	"HAVESPACE":      {words{"Asks whether a script would find room.", "询问脚本是否放得下。"}, "RFC 5804, 2.5"},
	"PUTSCRIPT":      {words{"Checks and stores a script; one that is wrong is refused with line and column.", "检查并保存脚本；有错的脚本会被拒绝并给出行列。"}, "RFC 5804, 2.6"},
	"LISTSCRIPTS":    {words{"Lists the scripts and tells which is active.", "列出脚本及当前启用的脚本。"}, "RFC 5804, 2.7"},
	"SETACTIVE":      {words{"Makes a script the active one; an empty name: none.", "启用一个脚本；名称为空：都不启用。"}, "RFC 5804, 2.8"},
	"GETSCRIPT":      {words{"Sends a script.", "取脚本内容。"}, "RFC 5804, 2.9"},
	"DELETESCRIPT":   {words{"Deletes a script that isn't active.", "删除未启用的脚本。"}, "RFC 5804, 2.10"},
	"RENAMESCRIPT":   {words{"Gives a script another name; it stays active if it was.", "重命名脚本，启用状态不变。"}, "RFC 5804, 2.11"},
	"CHECKSCRIPT":    {words{"Checks a script and stores nothing.", "只检查脚本，不保存。"}, "RFC 5804, 2.12"},
	"NOOP":           {words{"Does nothing; gives a tag back.", "无操作，可返回标签。"}, "RFC 5804, 2.13"},
	"UNAUTHENTICATE": {words{"Goes back to before signing in.", "回到登录前的状态。"}, "RFC 5804, 2.14"},
}

var sieveLimitWords = map[string]words{
	"Line":         {"Octets of a line", "一行的字节数"},
	"OctetsBefore": {"Octets that a session may send before signing in", "会话登录前可发送的总字节数"},
	"TimeBefore":   {"From the connection to the end of signing in", "从建立连接到完成登录"},
	"Tries":        {"Failed sign-ins a session", "每个会话的登录失败次数"},
	"Errors":       {"Malformed commands in a row; 5 before signing in", "连续错误命令数；登录前为 5 条"},
	"Idle":         {"Without a command", "无命令"},
	"Read":         {"Wait for the next octets of a command", "等待命令的后续数据"},
	"Write":        {"Wait for the client to take an answer", "等待客户端接收应答"},
	"Drain":        {"Octets of a literal that is too large that are read over; above it the session ends", "过大字面量可跳过的字节数；超过则断开"},
}

var sieveExtensionWords = map[string]doc{
	"fileinto":                   {words{"Files into another mailbox.", "投递到其他邮箱。"}, "RFC 5228, 4.1"},
	"envelope":                   {words{"Tests sender and recipient of the envelope.", "检测信封发件人和收件人。"}, "RFC 5228, 5.4"},
	"encoded-character":          {words{"`${hex:…}` and `${unicode:…}` in strings.", "字符串中的 `${hex:…}` 与 `${unicode:…}`。"}, "RFC 5228, 2.4.2.4"},
	"comparator-i;octet":         {words{"Compares octets.", "按字节比较。"}, "RFC 4790"},
	"comparator-i;ascii-casemap": {words{"Compares without case of ASCII letters; the default.", "忽略 ASCII 大小写比较，默认。"}, "RFC 4790"},
	"comparator-i;ascii-numeric": {words{"Compares numbers.", "按数值比较。"}, "RFC 4790"},
	"body":                       {words{"Tests the text of the message, its first 2 MiB.", "检测正文，限前 2 MiB。"}, "RFC 5173"},
	"copy":                       {words{"`:copy`: the message is kept too.", "`:copy`：同时保留邮件。"}, "RFC 3894"},
	"date":                       {words{"Tests dates and the time of now.", "检测日期和当前时间。"}, "RFC 5260"},
	"duplicate":                  {words{"Finds messages that came before.", "识别重复邮件。"}, "RFC 7352"},
	"editheader":                 {words{"Adds and removes header fields, but not those of transport, structure and authentication.", "增删邮件头字段，但传输、结构和认证字段除外。"}, "RFC 5293"},
	"enotify":                    {words{"Notifies by mail (mailto).", "以邮件（mailto）通知。"}, "RFC 5435, 5436"},
	"environment":                {words{"Tests where the script runs.", "检测运行环境。"}, "RFC 5183"},
	"ereject":                    {words{"Refuses the message while its sender waits.", "在会话中拒收邮件。"}, "RFC 5429"},
	"extracttext":                {words{"Takes the text of a part into a variable.", "把部件文本存入变量。"}, "RFC 5703, 7"},
	"foreverypart":               {words{"Looks at each part of the message.", "遍历邮件各部件。"}, "RFC 5703, 3"},
	"ihave":                      {words{"Asks which extensions are there.", "询问支持哪些扩展。"}, "RFC 5463"},
	"imap4flags":                 {words{"Sets flags and keywords.", "设置标志和关键字。"}, "RFC 5232"},
	"include":                    {words{"Runs another script of the same account (`:personal`).", "运行同一账号的其他脚本（`:personal`）。"}, "RFC 6609"},
	"index":                      {words{"Tests the n-th field of a name.", "检测同名字段中的第 n 个。"}, "RFC 5260, 6"},
	"mailbox":                    {words{"`mailboxexists`, and `:create` for fileinto.", "`mailboxexists` 以及 fileinto 的 `:create`。"}, "RFC 5490, 3"},
	"mime":                       {words{"Tests headers of parts and their parameters.", "检测部件头及其参数。"}, "RFC 5703, 4"},
	"regex":                      {words{"Regular expressions (RE2), in linear time.", "正则表达式（RE2），线性时间。"}, "draft-ietf-sieve-regex"},
	"reject":                     {words{"The same as ereject.", "同 ereject。"}, "RFC 5429"},
	"relational":                 {words{"Greater, less, and counts.", "大小比较与计数。"}, "RFC 5231"},
	"spamtest":                   {words{"The spam score, from 1 to 10; 0 while nothing judges mail.", "垃圾邮件评分 1 至 10；未检测时为 0。"}, "RFC 5235"},
	"spamtestplus":               {words{"The same in percent.", "同上，百分比。"}, "RFC 5235"},
	"special-use":                {words{"Names mailboxes by their use, such as `\\Junk`.", "以用途（如 `\\Junk`）指定邮箱。"}, "RFC 8579"},
	"subaddress":                 {words{"User and detail of user+detail@domain.", "user+detail@domain 的两部分。"}, "RFC 5233"},
	"vacation":                   {words{"Answers while away, each sender once in some days.", "外出自动回复，每位发件人若干天一次。"}, "RFC 5230"},
	"vacation-seconds":           {words{"The same in seconds.", "同上，以秒计。"}, "RFC 6131"},
	"variables":                  {words{"Variables, and what wildcards matched.", "变量以及通配符匹配的内容。"}, "RFC 5229"},
	"virustest":                  {words{"The result of a virus scan; 0 while nothing scans mail.", "病毒扫描结果；未扫描时为 0。"}, "RFC 5235"},
}
