module example.com/gitlab-workhorse

go 1.21
