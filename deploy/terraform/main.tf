# The archive's bucket on AWS, and who may do what in it. tests/deploy compares this with the code.
#
#   terraform init && terraform apply -var bucket=my-archive -var witness=my-archive-witness
#
# Two buckets, because the two promises differ. Rows must be erasable, so the archive's own bucket locks nothing: what is
# deleted there is gone after a day. The logs must not be: every entry, change, hold and digest is copied to a witness
# bucket as it is written, and locked there until the last row that it is about has expired. Whoever doubts the archive
# runs `whyrec archive verify --trust KEY`, and compares its logs with the witness's.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
  }
}

variable "bucket" {
  type        = string
  description = "the archive's bucket; WHYREC_ARCHIVE_URL is s3://BUCKET/PREFIX"
}

variable "witness" {
  type        = string
  description = "the bucket in which copies of the logs are locked"
}

variable "prefix" {
  type        = string
  default     = ""
  description = "of all keys of the archive: empty, or ending with a slash"
  validation {
    condition     = var.prefix == "" || endswith(var.prefix, "/")
    error_message = "The prefix must be empty or end with a slash."
  }
}

locals {
  # Days; those of stream/archive/aging/policy.py.
  hot_days  = 90
  cold_days = 730

  cold_class = "GLACIER_IR"
  logs       = ["_commits/", "_changes/", "_holds/", "_digests/"]
  roles      = ["sink", "puller", "tierer", "eraser", "holder", "signer"]
}

# --- The archive -----------------------------------------------------------------------------------------------------

resource "aws_s3_bucket" "archive" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Copying to the witness needs versions; what was deleted or erased is kept as one for a day only.
resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id
  versioning_configuration {
    status = "Enabled"
  }
}

# `whyrec archive tier` moves, compacts and expires, since it knows the legal holds and writes down what it does; no rule
# here may delete what readers see. The first rule only keeps the bill down where that task was not run.
resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    id     = "rows-to-the-cold-class"
    status = "Enabled"
    filter {
      prefix = "${var.prefix}date="
    }
    transition {
      days          = local.hot_days
      storage_class = local.cold_class
    }
  }

  rule {
    id     = "what-was-deleted-is-gone"
    status = "Enabled"
    filter {
      prefix = var.prefix
    }
    noncurrent_version_expiration {
      noncurrent_days = 1
    }
    expiration {
      expired_object_delete_marker = true
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# Nothing is written over, by nobody, and everything over TLS.
resource "aws_s3_bucket_policy" "archive" {
  bucket = aws_s3_bucket.archive.id
  policy = templatefile("${path.module}/policies/bucket.json.tftpl", { bucket = var.bucket, prefix = var.prefix })
}

# --- The witness -----------------------------------------------------------------------------------------------------

resource "aws_s3_bucket" "witness" {
  bucket              = var.witness
  object_lock_enabled = true
}

resource "aws_s3_bucket_public_access_block" "witness" {
  bucket                  = aws_s3_bucket.witness.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "witness" {
  bucket = aws_s3_bucket.witness.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "witness" {
  bucket = aws_s3_bucket.witness.id
  rule {
    default_retention {
      mode = "COMPLIANCE"
      days = local.cold_days + 30
    }
  }
}

resource "aws_iam_role" "replication" {
  name_prefix = "whyrec-witness-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "s3.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "replication" {
  role = aws_iam_role.replication.id
  policy = templatefile("${path.module}/policies/replication.json.tftpl", {
    bucket  = var.bucket
    prefix  = var.prefix
    witness = var.witness
  })
}

resource "aws_s3_bucket_replication_configuration" "witness" {
  depends_on = [aws_s3_bucket_versioning.archive, aws_s3_bucket_versioning.witness]
  bucket     = aws_s3_bucket.archive.id
  role       = aws_iam_role.replication.arn

  dynamic "rule" {
    for_each = local.logs
    content {
      id       = trim(rule.value, "_/")
      priority = rule.key
      status   = "Enabled"
      filter {
        prefix = "${var.prefix}${rule.value}"
      }
      delete_marker_replication {
        status = "Disabled"
      }
      destination {
        bucket        = aws_s3_bucket.witness.arn
        storage_class = "STANDARD_IA"
      }
    }
  }
}

# --- Who may do what -------------------------------------------------------------------------------------------------

# Attach each to the role that the task runs as: sink to the workers, puller to auditors, tierer, eraser, holder and
# signer to the jobs or people that run `whyrec archive tier`, `erase`, `hold` and `digest`.
resource "aws_iam_policy" "role" {
  for_each    = toset(local.roles)
  name_prefix = "whyrec-archive-${each.value}-"
  policy = templatefile("${path.module}/policies/${each.value}.json.tftpl", {
    bucket = var.bucket
    prefix = var.prefix
  })
}

output "policies" {
  description = "ARNs by role"
  value       = { for role, policy in aws_iam_policy.role : role => policy.arn }
}
