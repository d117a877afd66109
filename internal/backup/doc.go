// Package backup keeps encrypted copies of a whole store in a directory or a bucket: online, incremental, and each copy
// complete by itself. It reads a store.Source, a snapshot say, and gives one back, which a store.Loader takes: so a backup
// goes into either kind of store.
//
// A repository holds bundles of pieces (contents of messages, and rows of tables cut where they say so themselves), catalogs
// that say which pieces make up which table, and a manifest for each backup. Bundles and catalogs are age files
// (age-encryption.org, C2SP): whoever makes a backup needs the recipients alone, whoever reads it an identity. DESIGN.md says
// what holds, and what was weighed.
//
//	out, err := backup.Run(ctx, backup.Options{Snapshot: ..., Target: t, Recipients: list, Dir: dir})
//
//	repo, err := backup.Open(ctx, t)
//	b, err := repo.Find(ctx, "latest")
//	rd, err := repo.Read(ctx, b, identities, dir)
//	err = loader.Fill(ctx, &backup.Ahead{Reader: rd, At: now})
package backup
