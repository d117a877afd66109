package main

var imapStates = map[string]words{
	"not authenticated": {"not authenticated", "未登录"},
	"authenticated":     {"authenticated", "已登录"},
	"selected":          {"selected", "已选择邮箱"},
}

// imapSources translates sources that are not only RFC numbers.
var imapSources = map[string]words{
	"LIST under the name that old clients know": {"LIST under the name that old clients know", "旧客户端使用的 LIST 别名"},
}

var imapCapabilityWords = map[string]words{
	"CHILDREN":      {"LIST tells which mailboxes have children.", "LIST 标明邮箱是否有下级。"},
	"CONDSTORE":     {"MODSEQ: clients fetch only what changed.", "MODSEQ：客户端只取变化的部分。"},
	"ENABLE":        {"Turns extensions on.", "启用扩展。"},
	"ESEARCH":       {"SEARCH RETURN (MIN MAX ALL COUNT).", "SEARCH RETURN (MIN MAX ALL COUNT)。"},
	"ID":            {"Client and server name themselves; no version is told.", "客户端与服务器互报名称；服务器不透露版本。"},
	"IDLE":          {"New mail is told at once.", "新邮件即时通知。"},
	"IMAP4rev1":     {"The protocol.", "协议本身。"},
	"LIST-EXTENDED": {"LIST with selection and return options.", "LIST 支持选择和返回选项。"},
	"LIST-STATUS":   {"LIST with counts.", "LIST 同时返回计数。"},
	"LITERAL+":      {"Literals without waiting.", "发送字面量无需等待。"},
	"MOVE":          {"Moves in one step.", "一步移动邮件。"},
	"NAMESPACE":     {"One personal namespace, separator `/`.", "一个个人命名空间，分隔符为 `/`。"},
	"SASL-IR":       {"AUTHENTICATE with an initial response.", "AUTHENTICATE 可带初始响应。"},
	"SPECIAL-USE":   {"Drafts, Sent, Trash, Junk and Archive are marked.", "标明草稿箱、已发送、已删除、垃圾邮件和归档。"},
	"STATUS=SIZE":   {"STATUS tells the size of a mailbox.", "STATUS 可返回邮箱大小。"},
	"UIDPLUS":       {"APPEND and COPY tell UIDs; UID EXPUNGE.", "APPEND 和 COPY 返回 UID；支持 UID EXPUNGE。"},
	"UNSELECT":      {"Leaves a mailbox without expunging.", "离开邮箱而不清除邮件。"},
}

var imapCodeWords = map[string]doc{
	"ALREADYEXISTS":        {words{"The mailbox exists.", "邮箱已存在。"}, "RFC 5530"},
	"AUTHENTICATIONFAILED": {words{"Wrong user name or password; the same for unknown and suspended accounts.", "用户名或密码错误；账号不存在或已停用时应答相同。"}, "RFC 5530"},
	"BADCHARSET":           {words{"SEARCH in another charset than US-ASCII or UTF-8.", "SEARCH 使用了 US-ASCII 和 UTF-8 以外的字符集。"}, "RFC 3501, 7.1"},
	"CANNOT":               {words{"The name or the change is not allowed.", "名称或操作不被允许。"}, "RFC 5530"},
	"CORRUPTION":           {words{"The stored message is damaged; others are not concerned.", "存储的邮件已损坏，其他邮件不受影响。"}, "RFC 5530"},
	"EXPUNGEISSUED":        {words{"The message was removed meanwhile.", "邮件已被其他会话删除。"}, "RFC 5530"},
	"HASCHILDREN":          {words{"The mailbox has children and can't be deleted.", "邮箱有下级，不能删除。"}, "RFC 9051, 7.1"},
	"LIMIT":                {words{"A limit of the session or the account is reached.", "达到会话或账号的限制。"}, "RFC 5530"},
	"NONEXISTENT":          {words{"No such mailbox.", "邮箱不存在。"}, "RFC 5530"},
	"OVERQUOTA":            {words{"The quota is used up.", "配额已用完。"}, "RFC 5530"},
	"PRIVACYREQUIRED":      {words{"Begin TLS before signing in.", "登录前须先启用 TLS。"}, "RFC 5530"},
	"TOOBIG":               {words{"The message is larger than APPEND takes.", "邮件超过 APPEND 的大小上限。"}, "RFC 4469, 4.2"},
	"TRYCREATE":            {words{"The target mailbox doesn't exist: CREATE it first.", "目标邮箱不存在，请先 CREATE。"}, "RFC 3501, 7.1"},
	"UNAVAILABLE":          {words{"Not possible now; the log has the cause.", "暂时无法完成，原因见日志。"}, "RFC 5530"},
	"USEATTR":              {words{"CREATE with USE: the special use is unknown, or another mailbox has it.", "CREATE 的 USE 属性未知，或已被另一邮箱占用。"}, "RFC 6154"},
}

var imapLimitWords = map[string]words{
	"LineBefore":   {"Octets of a command line before signing in", "登录前命令行字节数"},
	"Line":         {"Octets of a command line after signing in", "登录后命令行字节数"},
	"Literal":      {"Octets of a literal that is no message", "非邮件字面量的字节数"},
	"OctetsBefore": {"Octets that a session may send before signing in", "会话登录前可发送的总字节数"},
	"TimeBefore":   {"From the connection to the end of signing in", "从建立连接到完成登录"},
	"Tries":        {"Failed sign-ins a session", "每个会话的登录失败次数"},
	"Errors":       {"BAD answers in a row before BYE; 5 before signing in", "连续 BAD 应答次数，达到后断开；登录前为 5 次"},
	"Idle":         {"Without a command, and in IDLE", "无命令或处于 IDLE"},
	"Read":         {"Wait for the next octets of a command", "等待命令的后续数据"},
	"Write":        {"Wait for the client to take an answer", "等待客户端接收应答"},
	"MinRate":      {"Octets a second that a literal must average after half a minute", "半分钟之后字面量的最低平均速率（字节/秒）"},
	"Bulk":         {"A whole literal", "接收一个完整的字面量"},
}

var pop3States = map[string]words{
	"authorization": {"before signing in", "登录前"},
	"transaction":   {"after signing in", "登录后"},
	"anyState":      {"both", "均可"},
}

var pop3CommandWords = map[string]doc{
	"CAPA": {words{"Lists the capabilities.", "列出能力。"}, "RFC 2449, 5"},
	"STLS": {words{"Turns TLS on.", "启用 TLS。"}, "RFC 2595, 4"},
	"UTF8": {words{"The client takes UTF-8; mail is sent the same with and without.", "客户端接受 UTF-8；无论是否声明，邮件内容不变。"}, "RFC 6856, 2"},
	"USER": {words{"The user name, inside TLS.", "用户名，须在 TLS 内。"}, "RFC 1939, 7"},
	"PASS": {words{"The password; locks the maildrop.", "密码；成功后锁定邮箱。"}, "RFC 1939, 7"},
	"AUTH": {words{"Signs in by PLAIN or LOGIN; alone it lists them.", "以 PLAIN 或 LOGIN 登录；不带参数时列出机制。"}, "RFC 5034"},
	"STAT": {words{"Number and octets of the messages.", "邮件数量和总字节数。"}, "RFC 1939, 5"},
	"LIST": {words{"Octets of each message.", "每封邮件的字节数。"}, "RFC 1939, 5"},
	"UIDL": {words{"Lasting ids of the messages.", "邮件的永久编号。"}, "RFC 1939, 7"},
	"RETR": {words{"Sends a message.", "取一封邮件。"}, "RFC 1939, 5"},
	"TOP":  {words{"Sends the header and some lines.", "取邮件头和若干行正文。"}, "RFC 1939, 7"},
	"DELE": {words{"Marks a message; QUIT deletes it.", "标记删除，QUIT 时生效。"}, "RFC 1939, 5"},
	"RSET": {words{"Takes the marks back.", "取消删除标记。"}, "RFC 1939, 5"},
	"LAST": {words{"The highest message that was retrieved, for old clients.", "已取邮件的最大序号，供旧客户端使用。"}, "RFC 1460"},
	"NOOP": {words{"Does nothing.", "无操作。"}, "RFC 1939, 5"},
	"QUIT": {words{"Deletes what is marked, all or nothing, and ends the session.", "删除已标记的邮件（全部或全不），并结束会话。"}, "RFC 1939, 6"},
}

var pop3CapabilityWords = map[string]doc{
	"AUTH-RESP-CODE":         {words{"`[AUTH]` and `[SYS/…]` say why signing in failed.", "以 `[AUTH]` 和 `[SYS/…]` 说明登录失败的原因。"}, "RFC 3206"},
	"EXPIRE NEVER":           {words{"Mail is kept until it is deleted.", "邮件保留至被删除。"}, "RFC 2449, 6.7"},
	"IMPLEMENTATION Waxwing": {words{"The name of the server; no version is told.", "服务器名称，不透露版本。"}, "RFC 2449, 6.9"},
	"PIPELINING":             {words{"Commands may be sent without waiting.", "可以不等应答连续发送命令。"}, "RFC 2449, 6.6"},
	"RESP-CODES":             {words{"Refusals carry codes in brackets.", "拒绝应答带有方括号代码。"}, "RFC 2449, 6.4"},
	"SASL":                   {words{"AUTH with PLAIN and LOGIN; inside TLS only.", "AUTH 支持 PLAIN 和 LOGIN，仅在 TLS 内。"}, "RFC 5034"},
	"STLS":                   {words{"Offered until TLS is on.", "启用 TLS 之前提供。"}, "RFC 2595, 4"},
	"TOP":                    {words{"The command TOP.", "支持 TOP 命令。"}, "RFC 2449, 6.1"},
	"UIDL":                   {words{"The command UIDL.", "支持 UIDL 命令。"}, "RFC 2449, 6.8"},
	"USER":                   {words{"USER and PASS; inside TLS only.", "支持 USER 和 PASS，仅在 TLS 内。"}, "RFC 2449, 6.2"},
	"UTF8 USER":              {words{"UTF-8 in mail and in user names.", "邮件和用户名可用 UTF-8。"}, "RFC 6856"},
}

var pop3CodeWords = map[string]doc{
	"[AUTH]":     {words{"Wrong user name or password; the same for unknown and suspended accounts.", "用户名或密码错误；账号不存在或已停用时应答相同。"}, "RFC 3206, 4"},
	"[IN-USE]":   {words{"Another session has the maildrop.", "另一个会话正在使用该邮箱。"}, "RFC 2449, 8.1.2"},
	"[SYS/PERM]": {words{"This message can't be read: damaged, or deleted by another session. The others can.", "该邮件无法读取：已损坏或已被其他会话删除。其他邮件不受影响。"}, "RFC 3206, 5"},
	"[SYS/TEMP]": {words{"Not possible now; the log has the cause.", "暂时无法完成，原因见日志。"}, "RFC 3206, 5"},
}

var pop3LimitWords = map[string]words{
	"Line":         {"Octets of a command line after signing in", "登录后命令行字节数"},
	"OctetsBefore": {"Octets that a session may send before signing in", "会话登录前可发送的总字节数"},
	"TimeBefore":   {"From the connection to the end of signing in", "从建立连接到完成登录"},
	"Tries":        {"Failed sign-ins a session", "每个会话的登录失败次数"},
	"Errors":       {"Malformed commands in a row; 5 before signing in", "连续错误命令数；登录前为 5 条"},
	"Idle":         {"Without a command", "无命令"},
	"Read":         {"Wait for the next octets of a command", "等待命令的后续数据"},
	"Write":        {"Wait for the client to take an answer", "等待客户端接收应答"},
	"Verify":       {"Octets of new mail that a session reads to learn exact sizes", "会话为得出准确大小而读取的新邮件字节数"},
}
