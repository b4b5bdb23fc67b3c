'use strict';

const { Router } = require('express');

const router = Router();
router.post('/claim-work', (req, res) => res.json({ tasks: [] }));

module.exports = { router };
