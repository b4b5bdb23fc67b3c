module example.com/gitlab-pages

go 1.21
